"""``--batch auto``: how many images fit in memory, measured with the largest images in steps of the model itself.

The steps run in a process of their own: where the memory does not suffice, the system ends that process, not the run,
and whatever it held is free afterwards.
"""

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS
from mmengine.utils import import_modules_from_strings

from mmres2net.engine.build import build_dataset, build_model, building, scope_of
from mmres2net.engine.console import peak_memory
from mmres2net.engine.speed import keep_freed_memory, speed_up
from mmres2net.environment import available_memory
from mmres2net.errors import UserError, reason_of

SAMPLES = 24  # samples of the data set, of which the largest is taken
USED = 0.8  # of the free memory; the rest is for data workers, other images and fragments
GIB = 2**30


class Measured(NamedTuple):
    """Bytes of memory that are free, and that steps of one and of two images take; how much padding enlarges images."""

    free: float
    one: float
    two: float
    padding: float


def fitting_batch(cfg: Config, *, plain: bool = False) -> tuple[int, str]:
    """Return how many images a batch may have in a single process, and a line with the arithmetic.

    It is the number that fits in 80 % of the free memory, and at most that which the learning rate is for
    (``auto_scale_lr.base_batch_size``), else the batch size of the config. ``plain`` measures without what makes a run
    faster on the CPU. A UserError says that the steps failed, or that two images do not fit.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    most = max(1, base // cfg.optim_wrapper.get('accumulative_counts', 1)) if base else 0
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        try:
            measured = pool.submit(_take_steps, cfg.to_dict(), plain).result()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            text = 'the memory does not suffice for a step of two images: use --batch 1, smaller ones, or --amp'
            raise UserError(f'--batch auto: {text}') from error
        except Exception as error:  # a model and a pipeline are programs
            raise UserError(f'--batch auto: a step of training failed: {reason_of(error)}') from error
    return batch_that_fits(measured, most or cfg.train_dataloader.get('batch_size', 1))


def batch_that_fits(found: Measured, most: int) -> tuple[int, str]:
    """Return how many images fit, at most ``most``, and a line with the arithmetic; a UserError if none fits."""
    each = max((found.two - found.one) * found.padding, 1.0)
    fixed = max(2 * found.one - found.two, 0.0)
    fit = max(0, int((USED * found.free - fixed) // each))
    numbers = [f'{value / GIB:.2f} GiB' for value in (found.free, fixed, each)]
    text = '--batch auto: {:.0%} of {} free, less {} for the model, by {} for an image: {} fit'
    text = text.format(USED, *numbers, fit)
    if not fit:
        raise UserError(f'{text}; use smaller images, a smaller model or --amp')
    return min(fit, most), f'{text}, the recipe has {most}'


def _take_steps(options: dict[str, Any], plain: bool) -> Measured:
    cfg, peaks = Config(options), []
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    device = get_device()
    sample, padding = _largest(cfg)
    free = torch.cuda.mem_get_info()[0] if device == 'cuda' else available_memory()
    if free is None:
        raise UserError('the system does not tell how much memory is free')
    model = build_model(cfg).to(device)
    if not plain and device == 'cpu':
        speed_up(model)
        keep_freed_memory()
    with scope_of(cfg), building('the optimizer'):
        options = {**copy.deepcopy(cfg.optim_wrapper), 'accumulative_counts': 1}
        wrapper = build_optim_wrapper(model, options)
        name = (cfg.train_dataloader.get('collate_fn') or {}).get('type')
        collate = FUNCTIONS.get(name) if name else pseudo_collate
    for images in (1, 2):
        for _ in range(2):  # the first step makes the state of the optimizer
            model.train_step(collate([copy.deepcopy(sample) for _ in range(images)]), wrapper)
        peaks.append(float(peak_memory()))
    return Measured(float(free), peaks[0], peaks[1], padding)


def _largest(cfg: Config) -> tuple[Any, float]:
    """Return the largest sample of the training data, and by how much padding to the size of others enlarges it."""
    dataset = build_dataset(cfg, cfg.train_dataloader.dataset)
    if not len(dataset):
        raise UserError('the train data set is empty')
    samples = [dataset[int(index)] for index in np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset)))]
    areas = [sample['inputs'].shape[-1] * sample['inputs'].shape[-2] for sample in samples]
    padded = [max(sample['inputs'].shape[axis] for sample in samples) for axis in (-1, -2)]
    return samples[int(np.argmax(areas))], padded[0] * padded[1] / max(areas)

"""Small runs with all kinds of randomness, each a process that is forked from this one: it need not import torch."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from torch.utils.data import Dataset

import mmres2net.engine.train  # noqa: F401 - before processes are forked
from mmres2net.cli import main
from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine.resume import newest_start
from mmres2net.paths import find_config

NUMBERS = """
default_scope = 'mmengine'
model = dict(type='StressNet')
train_dataloader = dict(
    batch_size=2, num_workers={workers}, persistent_workers={workers} > 0,
    dataset=dict(type='StressNumbers', length=14), sampler=dict(type='{sampler}', shuffle=True),
)
val_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='StressNumbers', length=4),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_cfg, val_evaluator = dict(), dict(type='StressMetric')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01), accumulative_counts={counts})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=4, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]
randomness = dict(seed=3)
log_level = 'ERROR'
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=2)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=3),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='auto', rule='greater'),
    results=None,
)
"""
STEPS = """
param_scheduler = param_scheduler[:1]
train_cfg = dict(by_epoch=False, max_iters=28, val_interval=14)
default_hooks['checkpoint'] |= dict(by_epoch=False, interval=7)
"""
WRAPPED = """
train_dataloader['dataset'] = dict(
    type='mmdet.MultiImageMixDataset',
    dataset=dict(type='RepeatDataset', times=2, dataset=dict(
        type='ClassBalancedDataset', oversample_thr=0.5, dataset=dict(type='StressScenes', pipeline=[]),
    )),
    pipeline=[
        dict(type='mmdet.Mosaic', img_scale=(16, 16)),
        dict(type='mmdet.RandomAffine', border=(-8, -8)),
        dict(type='mmdet.MixUp', img_scale=(16, 16)),
        dict(type='StressPack'),
    ],
)
"""
SPAWNED = "train_dataloader['multiprocessing_context'] = 'spawn'"
# Averaged weights that are not what is evaluated first, of a data set each of whose images is in a batch three times.
REPEATED = """
train_dataloader['sampler'] = dict(type='mmpretrain.RepeatAugSampler')
custom_hooks = [dict(type='mmpretrain.EMAHook', momentum=0.1, begin_epoch=2, evaluate_on_origin=True)]
"""
DETECTOR = """
_base_ = {base!r}
model = dict(
    backbone=dict(_delete_=True, type='mmres2net.Res2Net', depths=(1, 1, 1, 1), base_width=8, norm_cfg=dict(type='BN')),
    neck=dict(out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=16, roi_feat_size=7)
    ),
)
train_dataloader = dict(batch_size=2, num_workers={workers}, persistent_workers={workers} > 0)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2, val_interval=2)
randomness = dict(seed=3)
default_hooks = dict(checkpoint=dict(interval=1, save_best='auto'), results=None)
"""


def numbers(more: str = '', counts: int = 1, sampler: str = 'DefaultSampler') -> Callable[[int], str]:
    """Return what makes the config of small runs for a number of workers."""
    return lambda workers: NUMBERS.format(workers=workers, counts=counts, sampler=sampler) + more


CONFIGS: dict[str, Callable[[int], str]] = {
    'numbers': numbers(),
    'accumulated': numbers(counts=3),
    'steps': numbers(STEPS, sampler='InfiniteSampler'),
    'wrapped': numbers(WRAPPED),
    'repeated': numbers(REPEATED),
    'spawned': numbers(SPAWNED),
    'detector': lambda workers: DETECTOR.format(
        workers=workers, base=str(find_config('demo/faster_rcnn_r2n50.py').resolve())
    ),
}


@DATASETS.register_module()
class StressNumbers(Dataset):
    """Numbers with noise of each of the three generators."""

    def __init__(self, *, length: int) -> None:
        self.length, self.metainfo = length, dict(classes=('a',))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = torch.rand(8) + torch.from_numpy(np.random.rand(8)).float() + random.random()
        return dict(inputs=index + noise, data_samples=index)


@DATASETS.register_module()
class StressScenes(BaseDataset):
    """Five images with a box in each."""

    def load_data_list(self) -> list[dict[str, Any]]:
        return [dict(number=i) for i in range(5)]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [idx % 4]  # two images have a class of their own: they are repeated

    def prepare_data(self, idx: int) -> dict[str, Any]:
        image, box = np.random.randint(0, 255, (16, 16, 3), np.uint8), HorizontalBoxes(torch.tensor([[2.0, 2, 9, 9]]))
        labels = dict(gt_bboxes_labels=np.array([0]), gt_ignore_flags=np.array([False]))
        return dict(labels, img=image, img_shape=(16, 16), gt_bboxes=box)


@TRANSFORMS.register_module()
class StressPack(BaseTransform):
    """Eight numbers of an image."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        values = torch.from_numpy(np.ascontiguousarray(results['img'])).float().reshape(8, -1).mean(1)
        return dict(inputs=values / 64, data_samples=0)


@MODELS.register_module()
class StressNet(BaseModel):
    """Layers with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Linear(8, 64), torch.nn.BatchNorm1d(64), torch.nn.Dropout(0.3), torch.nn.Linear(64, 1)]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        out = self.layers(torch.stack(list(inputs)))
        return dict(loss=out.square().mean()) if mode == 'loss' else [dict(value=float(value)) for value in out]


@METRICS.register_module()
class StressMetric(BaseMetric):
    """The mean output, negated: it grows, so that there are new best checkpoints."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [abs(sample['value']) for sample in data_samples]

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return dict(score=-float(np.mean(results)))


def slow_disk(seconds: float) -> None:
    """Make each checkpoint of this process take so long, half of it when one half of the file is written."""

    def put(self: LocalBackend, obj: bytes, filepath: str | Path) -> None:
        with open(filepath, 'wb') as file:
            for part in (obj[: len(obj) // 2], obj[len(obj) // 2 :]):
                file.write(part)
                file.flush()
                time.sleep(seconds / 2)

    LocalBackend.put = put


class Runs:
    """The runs of one config in one folder."""

    def __init__(self, folder: Path, config: str, workers: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'config.py').write_text(CONFIGS[config](workers))
        self.data = []
        if config == 'detector':
            root = folder / 'shapes'
            self.data = ['--data', str(make_shapes(root, spec=ShapesSpec(n_train=8, n_val=2, seed=1)))]

    def start(
        self, work_dir: Path, *flags: str, prepare: Callable[[], Any] | None = None, log: Path | None = None,
        checks: bool = False,
    ) -> int:  # fmt: skip
        """Start a training that resumes what is there, and return its process, which leads a group of its own."""
        if (pid := os.fork()) != 0:
            return pid
        status = 70
        try:
            os.setsid()
            with open(log or f'{work_dir}.log', 'a') as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            torch.set_num_threads(1)  # the threads of the process that was forked are not there
            # Formatting its config takes most of the time of a small checkpoint.
            Config.pretty_text = property(lambda cfg: '\n'.join(f'{k} = {v!r}' for k, v in cfg.to_dict().items()))
            if prepare is not None:
                prepare()
            where = ['--work-dir', str(work_dir), '--checkpoint-every', '3it', *['--skip-data-check'] * (not checks)]
            status = main(['train', str(self.folder / 'config.py'), *self.data, *where, '--resume', *flags])
        finally:
            os._exit(status)

    def finish(self, work_dir: Path, *flags: str, **options: Any) -> int:
        """Train until the run ends by itself, and return its exit status."""
        return wait(self.start(work_dir, *flags, **options))


def wait(pid: int) -> int:
    """Return the exit status of a process, -N if signal N ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def outcome(work_dir: Path) -> dict[str, Any]:
    """What a finished run has: weights, averages, optimizer, learning rates and metrics."""
    start = newest_start(work_dir)
    assert start is not None
    content = torch.load(start.path, weights_only=False)
    scalars = content['message_hub']['log_scalars']
    kept = {name: content.get(name) for name in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')}
    times = ('train/time', 'train/data_time', 'val/time', 'val/data_time', 'train/memory', 'val/memory')
    history = {name: one.data[0].tolist() for name, one in scalars.items() if name not in times}
    best = sorted(path.name for path in work_dir.glob('best_*.pth'))
    return dict(kept, history=history, best=best, step=content['meta']['iter'])


def differences(one: Any, other: Any, path: str = '') -> list[str]:
    """Return the places where two outcomes are not equal bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other}, key=str)
        return [line for key in keys for line in differences(one.get(key), other.get(key), f'{path}/{key}')]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            line for i, pair in enumerate(zip(one, other, strict=True)) for line in differences(*pair, f'{path}/{i}')
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    return [] if one == other or one is other or (one != one and other != other) else [path]


def empty(folder: Path) -> Path:
    """Return a work dir that is not there yet."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(f'{folder}.log').unlink(missing_ok=True)
    return folder

"""Mixed precision: ``--amp`` as float16 with scaled losses on a GPU, or as bfloat16 on a GPU or a CPU."""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmres2net.engine.config import Change
from mmres2net.errors import UserError
from mmres2net.registry import OPTIM_WRAPPERS

PLAIN = ('OptimWrapper', 'AmpOptimWrapper', 'mmres2net.BFloat16OptimWrapper')
# Parts of the module names of layers that stay in float32: mmcv's operators have no bfloat16, and neither coordinates
# of regions nor losses have enough digits in it (8 bits: above 256 only even numbers).
FLOAT32 = ('mmcv.ops.', 'mmres2net.ops.', '.roi_extractors.', '.losses.')
HEADS = ('.dense_heads.', '.bbox_heads.', '.mask_heads.')  # whose outputs go into such operators, and losses


def with_amp(cfg: Config, precision: str, *, cuda: bool, bfloat16: bool) -> Change:
    """Return ``cfg`` with automatic mixed precision: ``fp16``, ``bf16``, or ``auto`` (fp16 on a GPU, bf16 on a CPU).

    ``cuda`` tells whether torch sees a GPU, and ``bfloat16`` whether that, or else the CPU, computes in bfloat16. A
    UserError says that the hardware does not have it, or that the config's optimizer wrapper does not fit.
    """
    precision = ('fp16' if cuda else 'bf16') if precision == 'auto' else precision
    if precision == 'fp16' and not cuda:
        raise UserError('--amp fp16 needs a GPU, and torch sees none; on a CPU: --amp bf16')
    if precision == 'bf16' and not bfloat16:
        which = 'GPU' if cuda else 'CPU (no avx512_bf16, amx_bf16 or bf16 in /proc/cpuinfo)'
        raise UserError(f'--amp bf16: this {which} does not compute in bfloat16; leave --amp out')
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    name = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix('mmengine.')
    if name not in PLAIN:
        raise UserError(f'--amp does not fit optim_wrapper.type={name!r}; it replaces {" and ".join(PLAIN[:2])}')
    cfg = copy.deepcopy(cfg)
    if precision == 'fp16':
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='float16')
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        options = {key: cfg.optim_wrapper[key] for key in cfg.optim_wrapper if key not in ('loss_scale', 'dtype')}
        cfg.optim_wrapper = {**options, 'type': 'mmres2net.BFloat16OptimWrapper'}
    return cfg, [f'--amp {precision}: optim_wrapper.type {name} -> {cfg.optim_wrapper.type}']


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """MMEngine's optimizer wrapper with bfloat16 autocast in the forward pass, on a GPU or a CPU.

    bfloat16 has the range of float32, so that losses need no scaling. mmcv's operators, the extraction of regions and
    the losses compute in float32, from outputs of the heads in float32. Evaluation is in float32.
    """

    _prepared = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass of a training step."""
        device = next(model.parameters()).device.type
        for module in () if self._prepared else model.modules():
            name = f'{type(module).__module__}.'
            if any(part in name for part in FLOAT32):
                vars(module)['forward'] = _in_float32(module.forward, device)
            elif any(part in name for part in HEADS):
                module.register_forward_hook(lambda module, inputs, outputs: to_float32(outputs))
        self._prepared = True
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def _in_float32(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(*to_float32(args), **to_float32(kwargs))

    return run


def to_float32(value: Any) -> Any:
    """Return a value of dicts, lists and tuples with its half precision tensors in float32."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if isinstance(value, dict):
        return {key: to_float32(part) for key, part in value.items()}
    return type(value)(map(to_float32, value)) if type(value) in (list, tuple) else value

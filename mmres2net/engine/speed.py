"""What training and testing change on a CPU, unless ``--plain`` is given: the same results, sooner."""

import ctypes
import platform
import sys

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmres2net.deploy import use_fused_blocks
from mmres2net.deploy.blocks import FusedLinear
from mmres2net.engine.build import unwrapped
from mmres2net.ops import RoIAlign, guard_mmcv_operators
from mmres2net.registry import HOOKS

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # <malloc.h> of glibc
GROW_BY, NEVER = 256 * 2**20, -1


@HOOKS.register_module()
class SpeedUpHook(Hook):
    """Apply :func:`speed_up` before the first step of training or testing, and keep freed memory, on a CPU.

    Applied after initialization: random weights are drawn in memory order, so that an earlier change of the memory
    format would change the weights of a given seed.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        device = next((parameter.device for parameter in runner.model.parameters()), torch.device('cpu'))
        lines = speed_up(runner.model, device)
        if device.type == 'cpu':
            lines += ['freed memory stays in the process'] if keep_freed_memory() else []
            title = 'faster on the CPU with the same results (--plain turns it off):'
            print_log('\n  '.join([title, *lines]), 'current')

    before_test = before_train


def speed_up(model: nn.Module, device: str | torch.device = 'cpu') -> list[str]:
    """Make ``model`` faster on a CPU, in place, and return what was changed as lines of text.

    Convolution weights get the channels_last memory format (not in DistributedDataParallel, which permutes gradients if
    strides change after it is built), mmcv's RoIAlign is replaced by ours, linear layers run in oneDNN on
    processors of AMD with AVX-512, where MKL is slower, and the blocks of our own networks fuse their operations in
    inference. Parameters and state dict keep their names and values; results differ by rounding alone. On another
    ``device`` only mmcv's operators are guarded. The model may be in a data-parallel wrapper.
    """
    guard_mmcv_operators()
    if torch.device(device).type != 'cpu':
        return []
    inner, lines = unwrapped(model), []
    if not any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        _use_channels_last(inner)
        lines.append('convolution weights -> channels_last')
    lines += _replace_roi_layers(inner)
    blocks = use_fused_blocks(inner)
    linear = sum(isinstance(module, FusedLinear) for module in inner.modules())
    lines += [f'{linear} linear layers -> oneDNN'] if linear else []
    return [*lines, f'{blocks} Res2Net blocks -> fused in inference'] if blocks else lines


def _use_channels_last(model: nn.Module) -> None:
    for module in model.modules():
        # Dilated depthwise ones are several times slower in channels_last.
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and max(module.dilation) > 1:
            if _contiguous_input not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_contiguous_input)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            for parameter in module._parameters.values():
                if parameter is not None and parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _contiguous_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous(), *inputs[1:])


def _replace_roi_layers(model: nn.Module) -> list[str]:
    """Replace mmcv's RoIAlign layers by ours, and return a line if there are some."""
    try:
        from mmcv.ops import RoIAlign as MmcvRoIAlign
    except ImportError:  # mmcv without operators: no model has such a layer
        return []
    replaced = 0
    for _, parent in list(model.named_modules()):
        for key, layer in list(parent.named_children()):
            changed = layer._forward_hooks or layer._forward_pre_hooks or 'forward' in vars(layer)
            if changed or type(layer) is not MmcvRoIAlign or layer.pool_mode != 'avg' or layer.use_torchvision:
                continue
            ratio = max(layer.sampling_ratio, 0)  # below 0 mmcv samples as with 0
            ours = RoIAlign(layer.output_size, layer.spatial_scale, ratio, aligned=layer.aligned)
            setattr(parent, key, ours.train(layer.training))
            replaced += 1
    return [f'{replaced} x mmcv.ops.RoIAlign -> mmres2net.ops.RoIAlign'] if replaced else []


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, so that the next image or step reuses it without new pages.

    glibc returns a block of more than 32 MiB to the system as soon as it is freed, and a network frees its activations
    at every image. Each page is then cleared and mapped again, which costs as much as a convolution on it. Results do
    not change; the process holds the most memory that it needed so far. Return whether it was done: only glibc can.
    """
    if sys.platform != 'linux' or platform.libc_ver()[0] != 'glibc':
        return False
    libc, settings = ctypes.CDLL(None), {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: GROW_BY}
    return all(libc.mallopt(name, value) == 1 for name, value in settings.items())

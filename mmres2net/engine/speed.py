"""The same model, faster: what training and testing do to a model on the CPU unless ``--plain`` is given."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from mmres2net.malloc import keep_freed_memory
from mmres2net.models import Bottle2neck
from mmres2net.ops import RoIAlign
from mmres2net.ops.conv import Conv2d, DilatedDepthwiseConv2d, fits, is_dilated_depthwise
from mmres2net.registry import HOOKS


@HOOKS.register_module()
class SpeedUpHook(Hook):
    """Apply :func:`speed_up` before the first step of training or testing, and keep freed memory on the CPU.

    So late because random weights are drawn in the order in which they lie in memory: before that, the same seed would
    give another network than a plain run has. Checkpoints are loaded by then, too.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        self._apply(runner)
        wrapper = runner.optim_wrapper
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            lay_out_like_parameters(one.optimizer)

    def before_test(self, runner: Runner) -> None:
        self._apply(runner)

    def _apply(self, runner: Runner) -> None:
        device = next((parameter.device for parameter in runner.model.parameters()), torch.device('cpu'))
        lines = speed_up(runner.model, device)
        if device.type == 'cpu' and keep_freed_memory():
            lines.append('freed memory stays in the process')
        if lines:
            print_log('\n  '.join(['faster on the CPU, with the same results (--plain: without):', *lines]), 'current')


def speed_up(model: nn.Module, device: str | torch.device = 'cpu') -> list[str]:
    """Make ``model`` fast on ``device``, in place, and return what was changed, a line each.

    Parameters and the names and values of its state dict stay what they are: checkpoints may be loaded and saved
    before and after, copies of the model are as fast, and results differ by rounding alone.

    On the CPU all of it goes into channels_last memory format: convolutions with such weights take any input in, and
    hand their output on in that format, so that nothing is copied between them. mmcv's RoIAlign becomes ours, so do
    convolutions that this format makes slow, and :func:`mmres2net.deploy.optimize` speeds up what it knows. Other
    devices are left alone: nothing was proven there.

    Args:
        model: A built model, in a data-parallel wrapper or not.
        device: Where it computes.
    """
    if torch.device(device).type != 'cpu':
        return []
    from mmres2net.deploy import optimize

    inner: nn.Module = model.module if is_model_wrapper(model) else model  # type: ignore[assignment]
    dilated = _become(inner, DilatedDepthwiseConv2d, is_dilated_depthwise)  # first: folded, they would be slow again
    optimize(inner).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Last, since only plain convolutions are folded; blocks of a backbone have a backward pass of their own.
    inside = {part for block in inner.modules() if isinstance(block, Bottle2neck) for part in block.modules()}
    trained = _become(inner, Conv2d, lambda module: fits(module) and module not in inside)
    lines = ['memory format -> channels_last; backbone, neck and heads -> their fast twins, where there are any']
    if trained:
        lines.append(f'{trained} convolutions -> mmres2net.ops.conv.Conv2d (backward pass by matrix products)')
    if dilated:
        lines.append(f'{dilated} dilated depthwise convolutions -> the usual memory format')
    return [*lines, *_replace_roi_layers(inner)]


def _become(model: nn.Module, kind: type[nn.Module], suits: Callable[[nn.Module], bool]) -> int:
    """Change the class of the modules that suit, and return how many there were."""
    chosen = [module for module in model.modules() if suits(module)]
    for module in chosen:
        module.__class__ = kind
    return len(chosen)


def lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimizer's loaded state into its parameters' memory format; mixed formats make each step slow."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _replace_roi_layers(model: nn.Module) -> list[str]:
    """Put our RoIAlign in the place of mmcv's, and return a line for each module that had some."""
    try:
        from mmcv.ops import RoIAlign as HostRoIAlign
    except ImportError:  # mmcv without operators: no model has such a layer
        return []
    lines = []
    for name, holder in list(model.named_modules()):
        layers = {key: layer for key, layer in holder.named_children() if type(layer) is HostRoIAlign}
        ours = {key: layer for key, layer in layers.items() if layer.pool_mode == 'avg' and not layer.use_torchvision}
        for key, layer in ours.items():
            ratio = max(layer.sampling_ratio, 0)  # below 0 mmcv samples as with 0
            fast = RoIAlign(layer.output_size, layer.spatial_scale, ratio, aligned=layer.aligned)
            setattr(holder, key, fast.train(layer.training))
        if ours:
            lines.append(f'{name}: {len(ours)} x mmcv.ops.RoIAlign -> mmres2net.ops.RoIAlign')
        if len(ours) < len(layers):
            rest = len(layers) - len(ours)
            lines.append(f"{name}: {rest} x mmcv.ops.RoIAlign stay (pool_mode='max' or use_torchvision=True)")
    return lines

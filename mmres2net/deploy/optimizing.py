"""``optimize``: the fast path of every part of a model that has one."""

from __future__ import annotations

from typing import TypeVar

import torch
from mmcv.cnn import ConvModule
from torch import nn

from mmres2net.deploy.fast import (
    Fast,
    FastBottle2neck,
    FastBottleneck,
    FastChain,
    FastConvModule,
    FastRes2Net,
    FastRoot,
    FastStage,
)
from mmres2net.deploy.folding import Folds
from mmres2net.models.dla import Bottleneck, Root
from mmres2net.models.res2net import Bottle2neck, Res2Net

Model = TypeVar('Model', bound=nn.Module)

# By exact type: what a subclass changes, its fast twin would not know.
FAST: dict[type[nn.Module], tuple[type[Fast], ...]] = {
    Bottle2neck: (FastBottle2neck,),
    Bottleneck: (FastBottleneck,),
    Root: (FastRoot,),
    Res2Net: (FastRes2Net,),
    nn.Sequential: (FastStage, FastChain),
    ConvModule: (FastConvModule,),
}


def optimize(model: Model) -> Model:
    """Make inference with ``model`` fast, in place, and return it.

    Norms are folded into convolutions, ReLU and the residual addition are done inside of them (on the CPU by oneDNN's
    fused convolutions on packed weights), and all is in channels-last memory format. Works on a backbone alone and on
    one inside of any detector, segmentor or classifier; necks and heads made of mmcv's ConvModule are done as well.

    Parameters, buffers and state dict stay the official ones: weights may be loaded and saved before and after. The
    fast path is taken under ``torch.no_grad()`` or ``torch.inference_mode()`` with the norms in evaluation mode, as in
    testing, and by frozen stages in training. Where gradients are wanted, or somebody has hooked a part, the modules
    do what they did before, to the bit. Folded weights follow changes of the parameters by themselves, but for
    writes through ``.data``: call ``model.eval()`` after these.

    Args:
        model: Any model; parts without a fast path stay as they are.

    Returns:
        ``model`` itself. In float32 its outputs differ by rounding alone: by less than 1e-5 of a feature's largest
        value on every network of the table.
    """
    for module in reversed(list(model.modules())):  # a stage is judged by its blocks
        _become_fast(module)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _become_fast(module: nn.Module) -> None:
    usual = type(module)
    for fast in FAST.get(usual, ()):
        module.__class__ = fast
        if module.is_eligible():  # type: ignore[operator]
            module.folds = Folds()  # type: ignore[assignment]
            return
        module.__class__ = usual

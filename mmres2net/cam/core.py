"""Grad-CAM and related methods: how much each cell of a layer contributes to a score.

Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2: the weight of a channel is the mean of the score's gradient
over it, and the map is the positive part of the weighted sum of the channels. The arithmetic of each method is that of
the library grad-cam (https://github.com/jacobgil/pytorch-grad-cam). Here is the rest: one forward pass, a gradient that
ends at the layer, and no hook that stays.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmres2net.errors import UserError, optional

Array = npt.NDArray[Any]
T = TypeVar('T')
# Methods whose maps need the activations and gradients of one layer and nothing else, by the library's class.
METHODS = {'gradcam': 'GradCAM', 'gradcam++': 'GradCAMPlusPlus'}
METHODS |= {'xgradcam': 'XGradCAM', 'hirescam': 'HiResCAM', 'layercam': 'LayerCAM'}


def library() -> Any:
    """Return the module of the library; a UserError if it does not import."""
    return optional('pytorch_grad_cam', 'grad-cam', 'class activation maps')


def activation_map(
    model: nn.Module, layer: str, score_of: Callable[[], tuple[Tensor, T]], *, method: str = 'gradcam'
) -> tuple[Array, T]:
    """Return how much each cell of a layer contributes to a score, (h, w), zero or more, and what ``score_of`` adds.

    The map has the layer's precision and is not normalized. A UserError says that the layer has no map for one image,
    that the score does not depend on it, or that the map is not finite.

    Args:
        model: The model, in evaluation mode; gradients of its parameters are not needed.
        layer: The name of one of its modules, whose output is (1, C, h, w).
        score_of: Runs the model on one image; returns the score, a tensor of one number, and anything else.
        method: A key of :data:`METHODS`.
    """
    kind = getattr(library(), METHODS[method])
    module = model.get_submodule(layer)

    def cut(module: nn.Module, args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[0] != 1:
            what = str(tuple(output.shape)) if isinstance(output, Tensor) else f'a {type(output).__name__}'
            raise UserError(f'the layer {layer} gives {what}, not one map (1, C, h, w): choose another layer')
        # A copy of the leaf, since the next layer may write into it.
        return output.detach().requires_grad_().clone()

    with torch.enable_grad(), ExitStack() as undo:
        # Before the library's own hooks, which then get the leaf that the gradient ends at.
        undo.callback(module.register_forward_hook(cut).remove)
        # Copied at once: an in-place ReLU behind the layer would write into what is kept.
        cam = kind(model, [module], reshape_transform=torch.clone)
        seen = cam.activations_and_grads
        undo.callback(seen.release)
        score, extra = score_of()
        calls = len(seen.activations)
        if calls != 1:
            what = f'runs {calls} times for one image' if calls else 'takes no part in the prediction'
            raise UserError(f'the layer {layer} {what}, so it has no map: choose another layer')
        if score.requires_grad:
            score.backward()
        if not seen.gradients:
            raise UserError(f'the score does not depend on the layer {layer}: choose a layer nearer to the output')
        activations, gradients = (kept[0].numpy() for kept in (seen.activations, seen.gradients))
        heat = cam.get_cam_image(None, module, None, activations, gradients, False)[0]
    if not np.isfinite(heat).all():
        raise UserError(f'the map of {layer} has values that are not finite: the weights of this model are damaged')
    return np.maximum(heat, 0), extra

"""CARAFE: every pixel of the larger map is a weighted sum of a window of the smaller one, with weights of its own.

Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", 2019, equation 4. Shapes: features (N, C, H, W), masks
(N, group_size * kernel_size^2, scale_factor * H, scale_factor * W), output (N, C, scale_factor * H, scale_factor * W);
the channels are in ``group_size`` groups that share their masks.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from mmres2net.mmcv_ops.precision import computable, gradients


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, **sizes: int) -> None:
    """Fill ``output``."""
    output.copy_(_reassemble(computable(features), computable(masks), **sizes))


def carafe_naive_backward(
    top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor, **sizes: int
) -> None:
    """Fill ``bottom_grad`` and ``mask_grad`` with the gradients of features and masks."""
    grads = gradients(lambda x, m: _reassemble(x, m, **sizes), (features, masks), top_grad)
    bottom_grad.copy_(grads[0])
    mask_grad.copy_(grads[1])


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **sizes: int
) -> None:
    """Fill ``output``, and ``rfeatures`` with the features, which backward is handed in their place."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **sizes)


def carafe_backward(
    top_grad: Tensor, rfeatures: Tensor, masks: Tensor, rtop_grad: Tensor, rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor, rmask_grad: Tensor, bottom_grad: Tensor, mask_grad: Tensor, **sizes: int,
) -> None:  # fmt: skip
    """Fill ``bottom_grad`` and ``mask_grad``."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, **sizes)


def _reassemble(features: Tensor, masks: Tensor, *, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    images, channels, height, width = features.shape
    border = kernel_size // 2
    padded = functional.pad(features, (border,) * 4)
    # Axes: images, groups, channels of a group, rows, rows within one, columns, columns within one.
    weights = masks.reshape(images, group_size, -1, height, scale_factor, width, scale_factor)
    output = features.new_zeros(())
    for place in range(kernel_size**2):
        row, column = divmod(place, kernel_size)
        window = padded[:, :, row : row + height, column : column + width]
        window = window.reshape(images, group_size, -1, height, 1, width, 1)
        output = output + window * weights[:, :, place, None]
    return output.reshape(images, channels, height * scale_factor, width * scale_factor)

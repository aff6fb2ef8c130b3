"""Focal loss and its gradient: Lin et al., "Focal Loss for Dense Object Detection", 2017, equation 5.

``target`` holds one class for each row; N rows, C classes. Logarithms of probabilities are exact where mmcv's
compiled operators cut them off at the smallest number of the type.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mmres2net.mmcv_ops.precision import computable


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the loss of every logit of ``input`` (N, C).

    Args:
        target: (N,): any number that is not a class stands for the background.
        weight: (C,), one factor for each class of a target, or empty.
        gamma: Exponent of the modulating factor.
        alpha: Weight of the positive class; the negative ones weigh 1 - alpha.
    """
    input, positive = computable(input), _one_hot(target, input)
    signed = torch.where(positive, input, -input)
    loss = -torch.sigmoid(-signed).pow(gamma) * functional.logsigmoid(signed)
    output.copy_(loss * _factor(positive, target, weight, alpha, input.dtype))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of every loss by its logit."""
    input, positive = computable(input), _one_hot(target, input)
    signed = torch.where(positive, input, -input)
    right, wrong = torch.sigmoid(signed), torch.sigmoid(-signed)
    slope = wrong.pow(gamma) * (gamma * right * functional.logsigmoid(signed) - wrong)
    grad_input.copy_(torch.where(positive, slope, -slope) * _factor(positive, target, weight, alpha, input.dtype))


def _one_hot(target: Tensor, input: Tensor) -> Tensor:
    return target[:, None] == torch.arange(input.size(1), device=target.device)


def _factor(positive: Tensor, target: Tensor, weight: Tensor, alpha: float, dtype: torch.dtype) -> Tensor:
    factor = (1 - alpha) + (2 * alpha - 1) * positive.to(dtype)
    return factor * weight[target][:, None] if weight.numel() else factor

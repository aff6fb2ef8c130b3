"""What the operators share: the precision that they compute in, and gradients by computing anew."""

from collections.abc import Callable

import torch
from torch import Tensor


def computable(tensor: Tensor) -> Tensor:
    """Return the tensor in double precision if it has it, else in single precision: half of it is for storage."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of ``function(*inputs)`` by all inputs, for an operator that kept nothing in forward."""
    with torch.enable_grad():
        leaves = [computable(tensor).detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(function(*leaves), leaves, computable(grad_output))

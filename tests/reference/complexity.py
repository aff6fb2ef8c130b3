"""Multiply-accumulates and outputs by hooks: convolutions and fully connected layers alone, as papers count them."""

from math import prod

import torch
import torch.nn as nn
from torch import Tensor


def count_work(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the multiply-accumulates and the outputs of a forward pass of (N, C, H, W); the model may be on 'meta'."""
    found: list[tuple[int, int]] = []

    def add(module: nn.Module, _: tuple, out: Tensor) -> None:
        found.append((prod(module.weight.shape[1:]) * out.numel(), out.numel()))  # (C_in / groups) * K * K, or C_in

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    try:
        with torch.no_grad():
            model(torch.empty(shape, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(macs for macs, _ in found), sum(outputs for _, outputs in found)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

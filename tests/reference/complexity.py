"""Multiply-accumulates by hooks: convolutions and fully connected layers alone, as papers count them."""

from math import prod

import torch
import torch.nn as nn
from torch import Tensor


def count_macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    total = 0

    def add(module: nn.Module, _: tuple, out: Tensor) -> None:
        nonlocal total
        per_output = prod(module.weight.shape[1:])  # (C_in / groups) * K * K, or C_in
        total += per_output * out.numel()

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    try:
        with torch.no_grad():
            model(torch.empty(shape, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

"""Pooling and cropping whose output size torch.export can follow for any input size.

torch works out the size of a pooled map by a division whose remainder it then asks for, which ties the program to
images of the example's size, but for multiples of it. On inputs of even size there is no question; so they are padded
to one where that changes nothing. And of a cropped map it asks whether anything was cut off, which of a gathered one it
does not. Only torch.export needs either.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM, SAMPLE = (nn.MaxPool2d, 3, 2, 1), (nn.MaxPool2d, 1, 2, 0)
SPLIT, SHORTCUT = (nn.AvgPool2d, 3, 2, 1), (nn.AvgPool2d, 2, 2, 0)


class Crop(nn.Module):
    """The upper left part of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.gather = False

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return (N, C, height, width) of ``x`` (N, C, H, W)."""
        if not self.gather:
            return x[:, :, :height, :width]
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        return x.index_select(2, rows).index_select(3, columns)


def opened(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose crops and strided pools of Res2Nets take any size in torch.export."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        if isinstance(parent, Crop):
            parent.gather = True
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and _kind(child) in (STEM, SAMPLE, SPLIT, SHORTCUT):
                setattr(parent, name, _OpenPool(child))
    return model


def _kind(pool: nn.MaxPool2d | nn.AvgPool2d) -> tuple[type, int, int, int]:
    sizes = [value[0] if isinstance(value, tuple) else value for value in (pool.kernel_size, pool.stride, pool.padding)]
    return type(pool), sizes[0], sizes[1], sizes[2]


class _OpenPool(nn.Module):
    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.kind = _kind(pool)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map, (N, C, ceil(H / 2), ceil(W / 2))."""
        if self.kind == STEM:
            return functional.max_pool2d(_even(x, -torch.inf), 3, 2, padding=1)
        if self.kind == SAMPLE:
            return x[:, :, ::2, ::2]
        if self.kind == SPLIT:
            return functional.avg_pool2d(_even(x, 0.0), 3, 2, padding=1)  # counts what is padded, as the block does
        inside = _even(torch.ones_like(x[:1, :1]), 0.0)
        return functional.avg_pool2d(_even(x, 0.0), 2, 2) / functional.avg_pool2d(inside, 2, 2)


def _even(x: Tensor, value: float) -> Tensor:
    height, width = x.shape[2], x.shape[3]
    return functional.pad(x, (0, (width + 1) // 2 * 2 - width, 0, (height + 1) // 2 * 2 - height), value=value)

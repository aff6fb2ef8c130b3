"""A convolution, the norm behind it and the ReLU behind that as one operation, for inference.

On the CPU that is one call of oneDNN with the weights packed once; elsewhere a plain convolution with folded weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CHANNELS_LAST = torch.channels_last


@dataclass(frozen=True)
class Link:
    """A convolution of a module and the norm that follows it, both still the module's own."""

    conv: nn.Conv2d
    norm: _BatchNorm | None

    def is_foldable(self) -> bool:
        """Whether this is a plain convolution and a norm that knows its statistics."""
        plain = type(self.conv) is nn.Conv2d and self.conv.padding_mode == 'zeros' and self.conv.padding != 'same'
        return plain and (
            self.norm is None or (isinstance(self.norm, _BatchNorm) and self.norm.running_mean is not None)
        )

    def is_at_rest(self) -> bool:
        """Whether folding leaves nothing out: the norm is on its running statistics, and nobody listens in between."""
        norm = self.norm
        return not is_hooked(self.conv) and (norm is None or not (norm.training or is_hooked(norm)))

    def tensors(self) -> list[Tensor]:
        """Return all that the folded weights depend on."""
        return [held[name] for held, name in self.slots()]

    def slots(self) -> list[tuple[dict[str, Any], str]]:
        """Return the places of all tensors that the folded weights depend on."""
        norm: Any = self.norm
        dicts = [self.conv._parameters] if norm is None else [self.conv._parameters, norm._parameters, norm._buffers]
        return [
            (held, name) for held in dicts for name, tensor in held.items()
            if tensor is not None and name != 'num_batches_tracked'
        ]  # fmt: skip


class Foldable(Protocol):
    """A module that has folds."""

    def links(self) -> list[Link]:
        """Return the convolutions and norms that are folded."""

    def slots(self) -> list[tuple[dict[str, Any], str]]:
        """Return the places of the parts that these and ``others`` are taken from."""

    def others(self) -> Iterable[nn.Module]:
        """Return further parts that the fast path does not call, so that nobody may have hooked them."""


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody wants to see what this very module takes or gives."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def fold(link: Link) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the one convolution that does what ``link`` does in evaluation mode.

    The arithmetic is in float64, so that the rounding is that of the result alone.
    """
    conv, norm = link.conv, link.norm
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None, 'is_foldable was not asked'
    assert norm.running_var is not None, 'is_foldable was not asked'
    scale = torch.rsqrt(norm.running_var.detach().double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.detach().double() * scale
    if bias is not None:
        shift = shift + bias.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    return folded.to(weight.dtype), shift.to(weight.dtype)


class FoldedConv:
    """The one convolution of a :class:`Link`, in plain torch.

    Not a module: its weights are made from the parameters, and no state dict shall see them.
    """

    def __init__(self, link: Link) -> None:
        conv = link.conv
        weight, self.bias = fold(link)
        self.weight = weight.contiguous(memory_format=CHANNELS_LAST)
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.groups = conv.groups

    def __call__(self, x: Tensor, *, relu: bool) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride) for ``x`` (N, in_channels, H, W)."""
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        out: Tensor = nn.functional.conv2d(x, self.weight, self.bias, *geometry)  # type: ignore[arg-type]
        return out.relu_() if relu else out

    def add(self, x: Tensor, other: Tensor, *, overwrite: bool) -> Tensor:
        """Return ReLU(convolution of ``x`` + ``other``); ``overwrite`` lets the result take the place of ``other``."""
        return (FoldedConv.__call__(self, x, relu=False) + other).relu_()


class OneDnnConv(FoldedConv):
    """The same as one call of oneDNN, ReLU and addition included."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._packed: Tensor | None = None
        self._packed_for: torch.Size | None = None
        self._last: torch.Size | None = None

    def __call__(self, x: Tensor, *, relu: bool) -> Tensor:
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        return torch.ops.mkldnn._convolution_pointwise.default(
            x, self._weight_for(x), self.bias, *geometry, 'relu' if relu else 'none', [], ''
        )

    def add(self, x: Tensor, other: Tensor, *, overwrite: bool) -> Tensor:
        if other.shape[2:].numel() == 1:  # the memory format of one pixel is ambiguous, and oneDNN refuses it
            return super().add(x, other, overwrite=overwrite)
        other = other.contiguous(memory_format=CHANNELS_LAST)
        rest = (self._weight_for(x), self.bias, self.padding, self.stride, self.dilation, self.groups)
        if overwrite:
            return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *rest, 'add', 1.0, 'relu', [], '')
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *rest, 'add', 1.0, 'relu', [], '')

    def _weight_for(self, x: Tensor) -> Tensor:
        """Return the weight, in oneDNN's order for the size of ``x`` once that size has come twice in a row.

        The order belongs to one size: at another one the same packed weights are up to fifteen times as slow as plain
        ones, which in turn lose about a tenth on small images. Images of many sizes are therefore given plain weights.
        """
        shape = x.shape
        if self._packed is not None and shape == self._packed_for:
            return self._packed
        repeated, self._last = shape == self._last, shape
        if not repeated:
            return self.weight
        self._packed_for = shape
        self._packed = _packed(self.weight, self.padding, self.stride, self.dilation, self.groups, shape)
        return self._packed


def _packed(weight: Tensor, padding: Any, stride: Any, dilation: Any, groups: int, shape: Sequence[int]) -> Tensor:
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # torch's own stub leaves out the size
    with torch.inference_mode(False), torch.no_grad():
        packed: Tensor = reorder(weight.to_mkldnn(), padding, stride, dilation, groups, list(shape))
    return packed


def runs_eagerly(x: Tensor) -> bool:
    """Whether ``x`` is on the CPU and computed as written: not traced, not compiled, in its own type."""
    if x.device.type != 'cpu' or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch.is_autocast_enabled('cpu')


def fits_onednn(x: Tensor) -> bool:
    """Whether the fused operations take ``x``: eager, on the CPU, in a type that this processor computes in."""
    return runs_eagerly(x) and x.numel() > 0 and bool(torch.backends.mkldnn.enabled) and onednn_works(x.dtype)


@lru_cache
def onednn_works(dtype: torch.dtype) -> bool:
    """Whether torch's fused oneDNN convolutions are there and right in ``dtype``.

    torch has them for its compiler and promises nothing about them; where they are missing or changed, plain
    convolutions do the work.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    with torch.inference_mode(False), torch.no_grad():
        x = torch.arange(-24, 24).view(1, 3, 4, 4).to(dtype).contiguous(memory_format=CHANNELS_LAST)
        weight, bias = torch.arange(-5, 4).view(3, 3, 1, 1).to(dtype), torch.arange(3).to(dtype)
        geometry: Any = ([0, 0], [1, 1], [1, 1], 1)
        expected = nn.functional.conv2d(x, weight, bias)
        try:
            packed = _packed(weight.contiguous(memory_format=CHANNELS_LAST), *geometry, x.shape)  # type: ignore[call-arg]
            plain, fused = torch.ops.mkldnn._convolution_pointwise, torch.ops.mkldnn._convolution_pointwise_
            one = plain(x, packed, bias, *geometry, 'relu', [], '')
            two = plain.binary(x, x, packed, bias, *geometry, 'add', 1.0, 'relu', [], '')
            three = fused.binary(x.clone(), x, packed, bias, *geometry, 'add', 1.0, 'relu', [], '')
        except (AttributeError, RuntimeError, TypeError):
            return False
        pairs = ((one, expected.relu()), (two, (expected + x).relu()), (three, (expected + x).relu()))
        return all(torch.equal(got, wanted) for got, wanted in pairs)


class Folds:
    """The folded convolutions of one module, made at the first use, and again when a weight has changed.

    Asked before every use, so it looks at dicts instead of through module attributes, which are slow: what is looked at
    (a block has forty tensors and parts) takes microseconds.

    Copies and pickles of it are empty: they belong to another module, whose weights will go their own way.
    """

    def __init__(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Forget all: weights may have changed in a way that leaves no trace (``.data``)."""
        self._parts: list[tuple[dict[str, Any], str, nn.Module | None]] = []
        self._links: Sequence[Link] = ()
        self._heard: list[nn.Module] = []
        self._norms: list[nn.Module] = []
        self._weights: list[tuple[dict[str, Any], str, Tensor, int, int]] = []
        self._made: list[FoldedConv] = []

    def of(self, owner: Foldable, x: Tensor) -> Sequence[FoldedConv] | None:
        """Return the convolutions of ``owner.links()``, folded, in the kind that suits ``x``.

        None where folding would leave something out: a norm is not on its running statistics, or somebody has hooked
        one of the parts.
        """
        if not self._parts or not self._has_same_parts():
            self._look_at(owner)
        for module in self._heard:
            if module._forward_hooks or module._forward_pre_hooks:
                return None
        for norm in self._norms:
            if norm.training:
                return None
        kind = OneDnnConv if fits_onednn(x) else FoldedConv
        if not self._made or type(self._made[0]) is not kind or not self._has_same_weights():
            self._make(kind)
        return self._made

    def _look_at(self, owner: Foldable) -> None:
        self.drop()
        self._links = owner.links()
        self._parts = [(slots, name, slots[name]) for slots, name in owner.slots()]
        self._norms = [link.norm for link in self._links if link.norm is not None]
        self._heard = [*(link.conv for link in self._links), *self._norms, *owner.others()]

    def _has_same_parts(self) -> bool:
        for slots, name, part in self._parts:  # noqa: SIM110 - a generator takes twice the time
            if slots.get(name) is not part:
                return False
        return True

    def _has_same_weights(self) -> bool:
        for slots, name, tensor, address, version in self._weights:
            if slots.get(name) is not tensor or tensor.data_ptr() != address:
                return False
            if version >= 0 and tensor._version != version:
                return False
        return True

    def _make(self, kind: type[FoldedConv]) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._made = [kind(link) for link in self._links]
        slots = [slot for link in self._links for slot in link.slots()]
        self._weights = [
            (held, name, held[name], held[name].data_ptr(), -1 if held[name].is_inference() else held[name]._version)
            for held, name in slots
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> Folds:
        return Folds()

    def __reduce__(self) -> tuple[type[Folds], tuple[()]]:
        return Folds, ()

"""Convolution, ReLU and residual addition as one call of oneDNN, for float32 inference on a CPU."""

from collections.abc import Sequence
from functools import lru_cache
from timeit import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from mmres2net.deploy.fuse import Pair, fold
from mmres2net.environment import cpu_field

CHANNELS_LAST = torch.channels_last


def runs_fused(*inputs: Tensor | None) -> bool:
    """Whether fused operations on ``inputs`` (N, C, H, W) are the same as single ones to everybody who may look.

    Only in plain eager execution in float32 on a CPU: compilation, export, tracing, autocast, transforms of functions,
    FLOP counters and other modes, and global hooks all work on the single operations.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode():
        return False
    if torch.is_autocast_enabled('cpu') or torch._C._len_torch_function_stack() or forward_ad._current_level >= 0:
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None or module_hooks._has_any_global_hook():
        return False
    return all(x is None or _is_plain(x) for x in inputs) and bool(torch.backends.mkldnn.enabled) and onednn_works()


def _is_plain(x: Tensor) -> bool:
    if type(x) is not Tensor or x.dtype is not torch.float32 or x.device.type != 'cpu':
        return False
    return x.dim() == 4 and x.numel() > 0 and x.layout is torch.strided


class FusedConv:
    """A convolution with its batch norm folded in, followed by a ReLU and a residual addition where they are asked for.

    Not a module: its weights are copies and must not appear in the state dict.
    """

    def __init__(self, pair: Pair) -> None:
        conv: Any = pair[0]
        weight, bias = fold(conv, pair[1])
        self.weight = weight.contiguous(memory_format=CHANNELS_LAST)
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias
        self._geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._packed: tuple[torch.Size, Tensor] | None = None
        self._last: torch.Size | None = None

    def equals(self, other: 'FusedConv') -> bool:
        """Whether both compute the same."""
        same = torch.equal(self.bias, other.bias) and torch.equal(self.weight, other.weight)
        return same and self._geometry == other._geometry

    def __call__(self, x: Tensor, *, relu: bool) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride) for ``x`` (N, in_channels, H, W)."""
        rest: Any = (self._weight_for(x), self.bias, *self._geometry, 'relu' if relu else 'none', [], '')
        return torch.ops.mkldnn._convolution_pointwise.default(x, *rest)

    def add_relu(self, x: Tensor, other: Tensor, *, inplace: bool = False) -> Tensor:
        """Return ReLU(convolution of ``x`` + ``other``); ``inplace`` writes it into ``other``."""
        if other.shape[2:].numel() == 1:  # the memory format of a single pixel is ambiguous, and oneDNN refuses it
            return (self(x, relu=False) + other).relu_()
        other = other.contiguous(memory_format=CHANNELS_LAST)
        rest: Any = (self._weight_for(x), self.bias, *self._geometry, 'add', 1.0, 'relu', [], '')
        if inplace:
            return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *rest)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *rest)

    def _weight_for(self, x: Tensor) -> Tensor:
        """Return the weight, in oneDNN's own order once the size of ``x`` has come twice in a row.

        That order belongs to one size: at another size it is up to fifteen times as slow as the plain order, which
        loses about a tenth on small images. Inputs of changing sizes therefore get plain weights.
        """
        packed, shape = self._packed, x.shape
        if packed is not None and packed[0] == shape:
            return packed[1]
        repeated, self._last = shape == self._last, shape
        if not repeated:
            return self.weight
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # torch's own stub leaves out the size
        with torch.inference_mode(False), torch.no_grad():
            self._packed = shape, reorder(self.weight.to_mkldnn(), *self._geometry, list(shape))
        return self._packed[1]


@lru_cache
def onednn_works() -> bool:
    """Whether torch's fused oneDNN convolutions exist, compute what they should, and are no slower than single calls.

    torch has them for its compiler and promises nothing about them. oneDNN has kernels of its own for processors with
    AVX2 and later. On others (ARM, older x86) the time of one convolution decides, which takes some milliseconds.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode(False), torch.no_grad():
        x = torch.arange(2.0**16).remainder(7).view(1, 64, 32, 32).contiguous(memory_format=CHANNELS_LAST)
        conv = nn.utils.skip_init(nn.Conv2d, 64, 64, 1)  # draws no random numbers, which a run would miss
        conv.weight.copy_(torch.arange(2.0**12).remainder(5).view_as(conv.weight).sub_(2))
        conv.bias.copy_(torch.arange(64.0))
        wanted, fused = conv(x), FusedConv((conv, nn.Identity()))
        try:
            results = [fused.add_relu(x, x.clone(), inplace=inplace) for inplace in (False, True, True)]  # then packed
            equal = [torch.equal(result, (wanted + x).relu()) for result in results]
            if not torch.equal(fused(x, relu=True), wanted.relu()) or not all(equal):
                return False
        except (AttributeError, RuntimeError, TypeError):
            return False
        if torch.backends.cpu.get_cpu_capability().startswith('AVX'):
            return True
        ways = (lambda: fused.add_relu(x, x), lambda: (conv(x) + x).relu_())
        one_call, single_calls = (min(repeat(way, number=1, repeat=9)) for way in ways)
        return one_call <= single_calls


@lru_cache
def mkl_is_slow() -> bool:
    """Whether oneDNN is faster than MKL in matrix products of float32: on processors of AMD with AVX-512.

    MKL has kernels for AVX-512 on Intel's alone (196 against 412 GFLOP/s on an EPYC). This is not measured: on a busy
    machine a run would round otherwise than the one that it resumes.
    """
    is_amd = cpu_field('vendor_id') == 'AuthenticAMD' and torch.backends.cpu.get_cpu_capability() == 'AVX512'
    return is_amd and torch.backends.mkl.is_available()


class FoldCache:
    """The fused convolutions of one module, made at the first use and again when anything they depend on changes.

    Changes of parameters in place, new parameters, modules and options are seen at once. A write through ``.data``
    leaves no trace, so that everything is also compared after each call of ``train()`` or ``eval()``.
    """

    def __init__(self) -> None:
        self.compare = False
        self._key: list[Any] | None = None
        self._tensors: list[Tensor] = []  # kept, so that no other tensor gets the address of one of them
        self._convs: list[FusedConv] = []

    def get(self, pairs: Sequence[Pair], inputs: Sequence[Tensor | None]) -> list[FusedConv] | None:
        """Return the fused convolutions of foldable ``pairs``, or None where gradients are wanted or types differ."""
        layers: Any = pairs
        held = [part for conv, norm in layers for part in (conv._parameters, norm._parameters, norm._buffers)]
        tensors: list[Tensor] = [tensor for part in held for tensor in part.values() if tensor is not None]
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*inputs, *tensors)):
            return None
        try:
            key: list[Any] = [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors]
        except RuntimeError:  # changes of inference tensors are not counted
            return None
        key += [(c.stride, c.padding, c.dilation, c.groups, vars(norm).get('eps')) for c, norm in layers]
        if self.compare or key != self._key:
            self._update(pairs, tensors)
            self._key, self.compare = key, False
        return self._convs or None

    def _update(self, pairs: Sequence[Pair], tensors: list[Tensor]) -> None:
        self._tensors, convs = tensors, []
        if {(tensor.dtype, tensor.device.type) for tensor in tensors if tensor.dim()} == {(torch.float32, 'cpu')}:
            with torch.inference_mode(False), torch.no_grad():
                convs = [FusedConv(pair) for pair in pairs]
                if len(convs) == len(self._convs):  # what is the same keeps its packed weights
                    convs = [old if old.equals(new) else new for old, new in zip(self._convs, convs, strict=True)]
        self._convs = convs

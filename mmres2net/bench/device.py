"""What depends on the device: clock, memory, number types, graphs. All that is CUDA's is in this file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mmres2net.bench.measure import forget_peak, peak_mib, resident_mib
from mmres2net.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

DEVICES = ('cpu', 'cuda')
DTYPES = {'fp32': 'float32', 'bf16': 'bfloat16', 'fp16': 'float16'}
WARM_UP = 3


class Meter(Protocol):
    """A clock and a memory gauge."""

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        """Return how long ``calls`` calls take together."""

    def start_memory(self) -> None:
        """Count memory from here on."""

    def peak_mib(self) -> float:
        """Return the most memory held since the start beyond what was held then, in MiB."""


class CpuMeter:
    """Wall clock and resident memory of the process."""

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    def start_memory(self) -> None:
        forget_peak()
        self._before = resident_mib()

    def peak_mib(self) -> float:
        return peak_mib() - self._before


class CudaMeter:
    """Events on the current stream, and what torch's allocator has handed out."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        start, end = self._cuda.Event(enable_timing=True), self._cuda.Event(enable_timing=True)
        self._cuda.synchronize()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def start_memory(self) -> None:
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        self._before = self._cuda.memory_allocated()

    def peak_mib(self) -> float:
        return float(self._cuda.max_memory_allocated() - self._before) / 1024**2


def meter(device: str) -> Meter:
    """Return the clock and gauge of ``device``."""
    return CudaMeter() if device == 'cuda' else CpuMeter()


def check_device(device: str, dtype: str) -> None:
    """Check that ``device`` is there and computes in ``dtype``.

    Raises:
        UserError: It is not, or does not.
    """
    if device == 'cpu':
        if dtype == 'fp16':
            raise UserError('--dtype fp16 is for --device cuda; on the CPU choose fp32 or bf16')
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no CUDA device here; leave it out to measure on the CPU')


def set_up(device: str) -> None:
    """Let this process compute in the type of numbers that was asked for, by the fastest kernels that cuDNN has."""
    if device == 'cuda':
        import torch

        torch.backends.cudnn.allow_tf32 = False  # on by default: float32 would have ten bits in convolutions
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def device_name(device: str) -> str:
    """Return what to say of ``device`` beside the machine's processor; nothing of the processor itself."""
    if device == 'cpu':
        return ''
    import torch

    return f'{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}'


def graphed(network: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    """Return ``network`` as one CUDA graph for inputs of the shape of ``x``.

    Outputs are the graph's own and are overwritten by the next call.
    """
    import torch

    static = x.clone(memory_format=torch.preserve_format)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(side):
        for _ in range(WARM_UP):  # cuDNN chooses its algorithms before the capture
            network(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        outs = network(static)

    def replay(x: Tensor) -> Any:
        static.copy_(x)
        graph.replay()
        return outs

    return replay

"""Backbones with the same weights: ours, and those of the libraries that they are compared with."""

import importlib
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental.optimization
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from benchmarks.case import Case, MissingError, Outputs
from mmres2net.deploy import fuse
from mmres2net.engine.speed import speed_up
from mmres2net.models import Res2Net

ARCH = 'res2net50_26w_4s'
# mmdet's Res2Net is another function: deep stem, averaging shortcut, a last split that is pooled only where strided.
MMDET = {'arch': 'res2net50_v1b_26w_4s', 'stage_pool': 'mmdet'}
MMDET_STEM = {**{f'conv1.{i}.': f'stem.{i}.' for i in (0, 1, 3, 4, 6)}, 'bn1.': 'stem.7.'}
TYPES = {'fp64': torch.float64, 'fp16': torch.float16, 'bf16': torch.bfloat16}


def ours(kind: str) -> nn.Module:
    """Return our network: ``mmdet`` and ``resnet50`` as the libraries have them, or an architecture by its name."""
    if kind == 'resnet50':
        return Res2Net(depths=(3, 4, 6, 3), scales=1, base_width=64)
    return Res2Net(**MMDET) if kind == 'mmdet' else Res2Net(kind)


def timm(kind: str) -> nn.Module:
    """Return timm's network with the outputs of its four stages."""
    return imported('timm').create_model(kind, features_only=True, out_indices=(1, 2, 3, 4))


def mmdet(kind: str) -> nn.Module:
    """Return mmdet's Res2Net-50."""
    imported('mmdet')
    options = {'depth': 50, 'scales': 4, 'base_width': 26, 'norm_eval': False, 'frozen_stages': -1}
    return MODELS.build({'type': 'mmdet.Res2Net', **options})


def imported(name: str) -> Any:
    """Return a module, or raise ``MissingError`` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f'{name} is not installed') from error


SOURCES: dict[str, Callable[[str], nn.Module]] = {'ours': ours, 'timm': timm, 'mmdet': mmdet}


def build(source: str, kind: str) -> nn.Module:
    """Return the network of ``source`` with the weights that all networks of its kind have, in evaluation mode."""
    network = SOURCES[source](kind)
    with torch.device('meta'):
        names = ours(kind).state_dict()
    state = {name_in(source, kind, name): weight(name, like) for name, like in names.items()}
    network.load_state_dict(state, strict=True)
    network.eval()  # returns None for mmdet's
    return network


def name_in(source: str, kind: str, name: str) -> str:
    """Return the name that ``source`` gives to the parameter that we call ``name``."""
    if source == 'timm' and kind == 'resnet50':
        return name.replace('.convs.0.', '.conv2.').replace('.bns.0.', '.bn2.')
    if source == 'mmdet':
        prefix = next((ours for ours in MMDET_STEM if name.startswith(ours)), None)
        return name if prefix is None else MMDET_STEM[prefix] + name.removeprefix(prefix)
    return name


def weight(name: str, like: Tensor) -> Tensor:
    """Return a random tensor that depends on ``name`` and shape alone; activations stay of order one in all blocks."""
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    low, high = -0.4, 0.4
    if name.endswith('running_var'):
        low, high = 0.5, 1.5
    elif like.dim() in (2, 4):
        high = (4.5 / like[0].numel()) ** 0.5
        low = -high
    elif name.endswith('weight'):
        low, high = (0.05, 0.25) if name.endswith('.bn3.weight') else (0.3, 1.0)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.rand(like.shape, generator=generator) * (high - low) + low


def images(case: Case) -> Tensor:
    """Return the images of all contenders, (N, 3, H, W)."""
    return torch.randn(case.batch, 3, *case.size, generator=torch.Generator().manual_seed(0)).to(case.device)


def last(value: Any) -> Any:
    """Return a module or tensor in channels_last memory format."""
    return value.to(memory_format=torch.channels_last)


def sped_up(network: nn.Module) -> nn.Module:
    """Return our network as ``train`` and ``test`` run it."""
    speed_up(network, next(network.parameters()).device)
    return network


MODES: dict[str, Callable[[nn.Module], Any]] = {
    'eager': lambda network: network,
    'channels_last': last,
    'folded': lambda network: last(torch.fx.experimental.optimization.fuse(network)),  # as timm's users do it
    'fused': lambda network: last(fuse(network)),
    'sped up': sped_up,
}


class Inference:
    """A forward pass of a backbone: whose network, which kind (see :func:`ours`), and a key of ``MODES``."""

    def __init__(self, case: Case, *, source: str, kind: str = ARCH, mode: str = 'eager', compiled=False) -> None:
        self.case, network = case, MODES[mode](build(source, kind).to(case.device))
        self.x = images(case) if mode == 'eager' else last(images(case))
        if case.suite == 'inference' or case.precision == 'fp64':
            network, self.x = (value.to(TYPES.get(case.precision, torch.float32)) for value in (network, self.x))
        if case.suite == 'inference' and case.precision == 'fp64':
            self.x = self.x[:1]  # a reference
        self.network = torch.compile(network, dynamic=False) if compiled else network

    def run(self) -> Any:
        """Run the network without gradients."""
        with torch.inference_mode():
            return self.network(self.x)

    def outputs(self) -> Outputs:
        """Return the features of all stages of the first image."""
        return {f'stage {i}': out[0].double().cpu().numpy() for i, out in enumerate(self.run())}


def recorded(job: Any) -> Any:
    """Return a job whose call replays a CUDA graph of itself."""
    call, side, graph = job.run, torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose their algorithms before
        _ = [call() for _ in range(3)]
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        result = call()
    job.run = lambda: (graph.replay(), result)[1]
    return job


class Training(Inference):
    """Forward pass, mean square of all outputs and backward pass of a backbone, with its norms in evaluation mode."""

    def run(self) -> Tensor:
        """Do one step without an optimizer."""
        self.network.zero_grad()
        half = self.case.precision in ('fp16', 'bf16')
        dtype = TYPES[self.case.precision] if half else torch.bfloat16
        with torch.autocast(self.case.device, dtype, enabled=half, cache_enabled=False):  # no cache within a graph
            outs = self.network(self.x)
        loss = torch.stack([out.to(self.x.dtype).square().mean() for out in outs]).sum()
        loss.backward()
        return loss

    def outputs(self) -> Outputs:
        """Return the loss, and the norm of the gradients of all convolutions, whose names differ by library."""
        loss = self.run().detach()
        grads = [p.grad for p in self.network.parameters() if p.grad is not None and p.dim() == 4]
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        return {'loss': loss.cpu().numpy(), 'gradient': norm.cpu().numpy()}


def ceilings(case: Case) -> dict[str, float]:
    """Return TFLOP/s of a matrix product in the precision of a case, and GB/s of a copy, read and written."""
    torch.backends.cuda.matmul.allow_tf32 = case.precision != 'fp32'
    side, dtype = (8192, TYPES.get(case.precision)) if case.device == 'cuda' else (1024, None)
    a, b = torch.randn(2, side, side, device=case.device, dtype=dtype)
    long = torch.randn(16 * side**2, device=case.device)
    found = {}
    for name, call, amount in (('TFLOP/s', lambda: a @ b, 2e-12 * side**3), ('GB/s', long.clone, 2e-9 * long.nbytes)):
        timer = Timer('call()', globals={'call': call}, num_threads=case.threads)
        found[name] = amount / timer.blocked_autorange().median
    return found


class Exported:
    """A network exported to ONNX, in the runtime ``onnxruntime`` or ``openvino``, on the CPU."""

    def __init__(self, case: Case, *, source: str, runtime: str) -> None:
        library, x = imported(runtime), images(case)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            file = str(Path(folder) / 'network.onnx')
            torch.onnx.export(build(source, ARCH), (x,), file, dynamo=False, opset_version=17)
            if runtime == 'onnxruntime':
                options = library.SessionOptions()
                options.intra_op_num_threads = case.threads
                session = library.InferenceSession(file, options, providers=['CPUExecutionProvider'])
                inputs = {session.get_inputs()[0].name: x.numpy()}
                self.run: Callable[[], Any] = lambda: session.run(None, inputs)
            else:
                hints = {'INFERENCE_NUM_THREADS': case.threads, 'INFERENCE_PRECISION_HINT': 'f32'}
                compiled, array = library.compile_model(file, 'CPU', hints), x.numpy()
                self.run = lambda: compiled([array]).to_tuple()

    def outputs(self) -> Outputs:
        """Return the features of all stages of the first image."""
        return {f'stage {i}': out[0] for i, out in enumerate(self.run())}

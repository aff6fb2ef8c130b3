"""Backbones with the same weights: ours, and those of the libraries that they are compared with."""

import importlib
import tempfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.case import Case, MissingError, Outputs
from mmres2net.deploy import fuse
from mmres2net.engine.speed import speed_up
from mmres2net.models import Res2Net

ARCH = 'res2net50_26w_4s'
# mmdet's Res2Net is another function: deep stem, averaging shortcut, a last split that is pooled only where strided.
MMDET = {'arch': 'res2net50_v1b_26w_4s', 'stage_pool': 'mmdet'}
MMDET_STEM = {**{f'conv1.{i}.': f'stem.{i}.' for i in (0, 1, 3, 4, 6)}, 'bn1.': 'stem.7.'}
OPSET = 17


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


def folded(network: nn.Module) -> nn.Module:
    """Fold the batch norms of a timm Res2Net or ResNet, in place, as its users do it by torch's own function."""
    for module in list(network.modules()):
        children = module._modules
        pairs = [(module, f'conv{i}', module, f'bn{i}') for i in (1, 2, 3) if f'bn{i}' in children]
        if 'convs' in children:
            pairs += [(module.convs, name, module.bns, name) for name in module.convs._modules]
        if isinstance(module, nn.Sequential):
            pairs += [(module, conv, module, norm) for conv, norm in pairwise(children)]
        for conv_owner, conv, norm_owner, norm in pairs:
            parts: Any = conv_owner._modules[conv], norm_owner._modules[norm]
            if type(parts[0]) is nn.Conv2d and isinstance(parts[1], nn.BatchNorm2d):
                conv_owner._modules[conv] = fuse_conv_bn_eval(*parts)
                norm_owner._modules[norm] = nn.Identity()
    return network


def images(case: Case) -> Tensor:
    """Return the images of all contenders, (N, 3, H, W)."""
    return torch.randn(case.batch, 3, *case.size, generator=torch.Generator().manual_seed(0)).to(case.device)


def last(module: Any) -> Any:
    """Return a module or tensor in channels_last memory format."""
    return module.to(memory_format=torch.channels_last)


def sped_up(network: nn.Module) -> nn.Module:
    """Return our network as ``train`` and ``test`` run it."""
    speed_up(network, next(network.parameters()).device)
    return network


MODES: dict[str, Callable[[nn.Module], Any]] = {
    'eager': lambda network: network,
    'channels_last': last,
    'folded': lambda network: last(folded(network)),
    'fused': lambda network: last(fuse(network)),
    'sped up': sped_up,
    'compiled': lambda network: torch.compile(last(network), dynamic=False),
}


class Inference:
    """A forward pass of a backbone: whose network, which kind (see :func:`ours`), and a key of ``MODES``."""

    def __init__(self, case: Case, *, source: str, kind: str = ARCH, mode: str = 'eager') -> None:
        self.network = MODES[mode](build(source, kind).to(case.device))
        self.x = images(case) if mode == 'eager' else last(images(case))

    def run(self) -> Any:
        """Run the network without gradients."""
        with torch.inference_mode():
            return self.network(self.x)

    def outputs(self) -> Outputs:
        """Return the features of all stages."""
        return {f'stage {i}': out.float().cpu().numpy() for i, out in enumerate(self.run())}


class Training(Inference):
    """Forward pass, mean square of all outputs and backward pass of a backbone, with its norms in evaluation mode."""

    def run(self) -> Tensor:
        """Do one step without an optimizer."""
        self.network.zero_grad()
        loss = sum((out.square().mean() for out in self.network(self.x)), torch.zeros((), device=self.x.device))
        loss.backward()
        return loss

    def outputs(self) -> Outputs:
        """Return the loss, and the norm of the gradients of all convolutions, whose names differ by library."""
        loss = self.run().detach()
        grads = [p.grad for p in self.network.parameters() if p.grad is not None and p.dim() == 4]
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        return {'loss': loss.cpu().numpy(), 'gradient': norm.cpu().numpy()}


class Exported:
    """A network exported to ONNX, in the runtime ``onnxruntime`` or ``openvino``, on the CPU."""

    def __init__(self, case: Case, *, source: str, runtime: str) -> None:
        if case.device != 'cpu':
            raise MissingError(f'{runtime} is measured on the CPU only')
        library, x = imported(runtime), images(case)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            file = str(Path(folder) / 'network.onnx')
            torch.onnx.export(build(source, ARCH), (x,), file, dynamo=False, opset_version=OPSET)
            if runtime == 'onnxruntime':
                options = library.SessionOptions()
                options.intra_op_num_threads = case.threads
                session = library.InferenceSession(file, options, providers=['CPUExecutionProvider'])
                inputs = {session.get_inputs()[0].name: x.numpy()}
                self.run: Callable[[], Any] = lambda: session.run(None, inputs)
            else:
                hints = {'INFERENCE_NUM_THREADS': case.threads, 'INFERENCE_PRECISION_HINT': 'f32'}
                compiled = library.compile_model(file, 'CPU', hints)
                array = x.numpy()
                self.run = lambda: compiled([array]).to_tuple()

    def outputs(self) -> Outputs:
        """Return the features of all stages."""
        return {f'stage {i}': out for i, out in enumerate(self.run())}

"""What the contenders of torch do: infer, or take a training step, with a backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.bench.device import DTYPES, graphed, set_up
from mmres2net.bench.networks import build, operations
from mmres2net.bench.worker import MissingError
from mmres2net.deploy import optimize

# Whose gradients are compared: one of each kind of layer, from both ends of the network.
WATCHED = ('layer1.0.conv1.weight', 'layer1.0.convs.0.weight', 'layer3.1.convs.0.weight', 'layer4.2.bn3.weight')


def images(shape: Sequence[int]) -> Tensor:
    """Return the images that all contenders get, (N, 3, H, W)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 4 - 2


def placed(x: Any, device: str, dtype: torch.dtype, channels_last: bool) -> Any:
    """Return a network or images on a device, in a number type and memory format."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return x.to(device=device, dtype=dtype, memory_format=layout)


def eager(network: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    """Return the network as it is."""
    return network


def optimized(network: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    """Return the network after :func:`mmres2net.deploy.optimize`."""
    return optimize(network)


def compiled(network: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    """Return the network compiled for inputs of one shape."""
    return torch.compile(network, dynamic=False)


MODES: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Any]]] = {
    'eager': eager,
    'optimized': optimized,
    'compiled': compiled,
    'graph': graphed,
    'optimized graph': lambda network, x: graphed(optimize(network), x),
}


class Inference:
    """A forward pass of a backbone without gradients.

    Args:
        source: Whose network; see :mod:`mmres2net.bench.networks`.
        kind: Which network.
        arch: Of which architecture.
        shape: Of the images, (N, 3, H, W).
        mode: A key of ``MODES``.
        device: ``cpu`` or ``cuda``.
        dtype: A key of ``DTYPES``, or ``fp64``.
        channels_last: Whether network and images have this memory format.
    """

    def __init__(
        self,
        source: str,
        kind: str,
        arch: str,
        shape: Sequence[int],
        *,
        mode: str = 'eager',
        device: str = 'cpu',
        dtype: str = 'fp32',
        channels_last: bool = False,
    ) -> None:
        self.device = device
        set_up(device)
        self._what = (kind, arch, tuple(shape))
        number = getattr(torch, DTYPES.get(dtype, 'float64'))
        network = placed(build(source, kind, arch), device, number, channels_last)
        self.x = placed(images(shape), device, number, channels_last)
        self.network = MODES[mode](network, self.x)

    def run(self) -> None:
        with torch.inference_mode():
            self.network(self.x)

    def outputs(self) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outs = self.network(self.x)
        return {f'feature {i}': _array(out) for i, out in enumerate(outs)}

    def facts(self) -> dict[str, Any]:
        return {'operations': operations(*self._what)}


class Training:
    """Forward pass, mean of all outputs, backward pass of a backbone; no optimizer.

    Args:
        source: Whose network; see :mod:`mmres2net.bench.networks`.
        kind: Which network.
        arch: Of which architecture.
        shape: Of the images, (N, 3, H, W).
        live: Norms take the statistics of the batch, not the running ones.
        device: ``cpu`` or ``cuda``.
        dtype: A key of ``DTYPES``, or ``fp64``.
        channels_last: Whether network and images have this memory format.
        fast: Whether :func:`mmres2net.deploy.optimize` is applied, as the project's tools do on a CPU.
    """

    def __init__(
        self,
        source: str,
        kind: str,
        arch: str,
        shape: Sequence[int],
        *,
        live: bool,
        device: str = 'cpu',
        dtype: str = 'fp32',
        channels_last: bool = False,
        fast: bool = False,
    ) -> None:
        self.device = device
        set_up(device)
        self._what = (kind, arch, tuple(shape))
        number = getattr(torch, DTYPES.get(dtype, 'float64'))
        network = build(source, kind, arch)
        self.network = placed(optimize(network) if fast else network, device, number, channels_last)
        self.network.train()
        if not live:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        self.x = placed(images(shape), device, number, channels_last)

    def run(self) -> None:
        torch.stack([out.mean() for out in self.network(self.x)]).sum().backward()
        self.network.zero_grad(set_to_none=True)

    def outputs(self) -> dict[str, np.ndarray]:
        """Return a loss and gradients of it: of the mean of the outputs times random numbers.

        The plain mean is nearly the same whatever a norm on the batch is given, so its gradients are mostly rounding.
        """
        outs = self.network(self.x)
        loss = torch.stack([(out * images(out.shape).to(out)).mean() for out in outs]).sum()
        loss.backward()
        parameters = dict(self.network.named_parameters())
        watched = {name: parameters[name].grad for name in WATCHED if name in parameters}
        if not watched:
            raise MissingError('none of the gradients to compare is there')
        found = {f'gradient of {name}': _array(gradient) for name, gradient in watched.items() if gradient is not None}
        self.network.zero_grad(set_to_none=True)
        return {'loss': _array(loss), **found}

    def facts(self) -> dict[str, Any]:
        return {'operations': operations(*self._what, training=True)}


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()


class Reference:
    """What all contenders of a kind have to give: computed in float64, by timm's network where it has it, else by ours.

    Args:
        job: Name of the job in this module.
        kind: Which network.
        options: The job's other keywords.
    """

    device = 'cpu'

    def __init__(self, job: str, kind: str, options: Mapping[str, Any]) -> None:
        make = {'Inference': Inference, 'Training': Training}[job]
        self.source = 'timm'
        try:
            self._job = make('timm', kind, dtype='fp64', **options)
        except (MissingError, ModuleNotFoundError):
            self.source = 'ours'
            self._job = make('ours', kind, dtype='fp64', **options)

    def run(self) -> None:
        self._job.run()

    def outputs(self) -> dict[str, np.ndarray]:
        return self._job.outputs()

    def facts(self) -> dict[str, Any]:
        return {**self._job.facts(), 'source': self.source}


class MatrixProduct:
    """A product of two square matrices, the first of the two measures of what this machine can do."""

    def __init__(self, side: int, *, device: str = 'cpu', dtype: str = 'fp32') -> None:
        self.device, self._side = device, side
        set_up(device)
        number = getattr(torch, DTYPES[dtype])
        self._a, self._b = (images((side, side)).to(device, number) for _ in range(2))

    def run(self) -> None:
        self._a @ self._b

    def outputs(self) -> dict[str, np.ndarray]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {'operations': 2 * self._side**3}


class Convolution:
    """A 3x3 convolution as in the middle of a ResNet, channels last, through oneDNN or cuDNN."""

    def __init__(self, channels: int, side: int, *, batch: int = 1, device: str = 'cpu', dtype: str = 'fp32') -> None:
        self.device = device
        set_up(device)
        number = getattr(torch, DTYPES[dtype])
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self._layer = placed(layer, device, number, channels_last=True)
        self._x = placed(images((batch, channels, side, side)), device, number, channels_last=True)
        self._operations = 2 * 9 * batch * (channels * side) ** 2

    def run(self) -> None:
        with torch.inference_mode():
            self._layer(self._x)

    def outputs(self) -> dict[str, np.ndarray]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {'operations': self._operations}

"""Compare two networks in float64: features of every stage, gradients of every parameter, norm statistics."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn as nn
from torch import Tensor

FORWARD_TOL = 1e-10  # relative to the largest entry of the expected tensor, or absolute below 1
GRADIENT_TOL = 1e-9


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, norm parameters and statistics in float64; activations stay of order one in deep networks."""
    gen = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if not tensor.is_floating_point():
                tensor.zero_()
            elif name.endswith('running_var'):
                tensor.uniform_(0.5, 1.5, generator=gen)
            elif tensor.dim() == 4:
                bound = (4.5 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound, generator=gen)
            elif name.endswith('weight'):
                tensor.uniform_(0.3, 1.0, generator=gen)
            else:  # biases and running means
                tensor.uniform_(-0.4, 0.4, generator=gen)
    return model


def random_network(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """What `build` returns, randomised; its own initialisation costs nothing, on the meta device."""
    with torch.device('meta'):
        model = build()
    return randomise(model.to_empty(device='cpu'), seed)


def with_weights(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> nn.Module:
    """What `build` returns, with exactly these weights; convolutions share their memory."""
    with torch.device('meta'):
        model = build()
    own = {name: tensor if tensor.dim() == 4 else tensor.clone() for name, tensor in weights.items()}
    model.load_state_dict(own, strict=True, assign=True)
    return model


def assert_close(actual: Tensor, expected: Tensor, tol: float, what: str) -> None:
    assert actual.shape == expected.shape, f'{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}'
    error = (actual - expected).abs().max().item()
    limit = tol * max(1.0, expected.abs().max().item())
    assert error <= limit, f'{what}: largest difference {error:.3g}, allowed {limit:.3g}'


def assert_same_function(
    ours: nn.Module, theirs: nn.Module, x: Tensor, *, run_theirs: Callable[[Tensor], Sequence[Tensor]] | None = None,
    rename: Callable[[str], str] = lambda name: name, modes: Sequence[str] = ('eval', 'train'),
) -> None:  # fmt: skip
    """Features, gradients and norm statistics agree; `rename` turns a parameter name of `ours` into theirs."""
    for mode in modes:
        for model in (ours, theirs):
            model.train(mode == 'train')
            model.zero_grad()
        _assert_same_in_this_mode(ours, theirs, x, run_theirs or theirs, rename)


def _assert_same_in_this_mode(
    ours: nn.Module, theirs: nn.Module, x: Tensor, run_theirs: Callable, rename: Callable[[str], str]
) -> None:
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    outs, expected = ours(x_ours), run_theirs(x_theirs)
    assert len(outs) == len(expected), f'{len(outs)} stages, expected {len(expected)}'
    for i, (out, want) in enumerate(zip(outs, expected, strict=True)):
        assert want.std() > 1e-3, f'stage {i} of the expected features is trivial'
        assert_close(out.detach(), want.detach(), FORWARD_TOL, f'stage {i}')
    weights = [torch.randn_like(out) for out in expected]
    for features in (outs, expected):
        sum((f * w).mean() for f, w in zip(features, weights, strict=True)).backward()
    assert_close(x_ours.grad, x_theirs.grad, GRADIENT_TOL, 'gradient of the input')
    _assert_same_gradients(dict(ours.named_parameters()), dict(theirs.named_parameters()), rename)
    their_buffers = dict(theirs.named_buffers())
    for name, buffer in ours.named_buffers():
        assert_close(buffer.double(), their_buffers[rename(name)].double(), FORWARD_TOL, f'buffer {name}')


def _assert_same_gradients(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], rename: Callable[[str], str]
) -> None:
    for name, parameter in ours.items():
        want = theirs[rename(name)].grad
        assert want is not None, f'{name}: no gradient is expected'
        assert parameter.grad is not None, f'{name}: no gradient'
        scale = want.abs().max().item()
        assert scale > 0, f'{name}: the expected gradient is trivial'
        error = (parameter.grad - want).abs_().max().item() / scale
        assert error <= GRADIENT_TOL, f'gradient of {name}: largest difference {error:.3g} of its largest entry'


def largest_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))

"""Maps of a small network against own arithmetic in float64; the model is left as it was."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmres2net.cam.core import METHODS, activation_map
from mmres2net.errors import UserError
from tests.cam.models import state_of

CHANNELS, CLASSES = 5, 3
LABEL = 1


class Small(nn.Module):
    """A layer whose output is written over by the ReLU behind it, and a classifier on the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.body = nn.Conv2d(4, CHANNELS, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(CHANNELS, CLASSES)
        self.unused = nn.Conv2d(3, 2, 1)

    def head(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(x).square().mean((2, 3)))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(self.stem(image)))


@pytest.fixture
def model() -> Small:
    net = Small().double().eval().requires_grad_(False)
    with torch.no_grad():
        net.stem[1].running_mean.normal_()
        net.stem[1].running_var.uniform_(0.5, 2)
    return net


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 21, 33, dtype=torch.float64)


def scored(model: Small, image: Tensor) -> Callable[[], tuple[Tensor, str]]:
    return lambda: (model(image)[0, LABEL], 'found')


def by_hand(model: Small, image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    model.eval()
    with torch.no_grad():
        activations = model.body(model.stem(image))
    leaf = activations.clone().requires_grad_()
    gradients = torch.autograd.grad(model.head(leaf.clone())[0, LABEL], leaf)[0]
    return activations[0].numpy(), gradients[0].numpy()


def plus_plus(gradients: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Return the weights of channels by equation 19 of Grad-CAM++."""
    squares, sums = gradients**2, activations.sum((1, 2), keepdims=True)
    alpha = squares / (2 * squares + sums * gradients**3 + 1e-6)
    return (np.where(gradients != 0, alpha, 0) * np.maximum(gradients, 0)).sum((1, 2), keepdims=True)


WEIGHTS = {
    'gradcam': lambda g, a: g.mean((1, 2), keepdims=True), 'gradcam++': plus_plus,
    'xgradcam': lambda g, a: (g * a).sum((1, 2), keepdims=True) / (a.sum((1, 2), keepdims=True) + 1e-7),
    'hirescam': lambda g, a: g, 'layercam': lambda g, a: np.maximum(g, 0),
}  # fmt: skip


@pytest.mark.parametrize('method', METHODS)
def test_maps_are_those_of_the_papers(method: str, model: Small, image: Tensor) -> None:
    activations, gradients = by_hand(model, image)
    assert activations.min() < 0, 'the in-place ReLU behind the layer would have something to write over'
    expected = np.maximum((WEIGHTS[method](gradients, activations) * activations).sum(0), 0)
    found, words = activation_map(model, 'body', scored(model, image), method=method)
    assert words == 'found'
    assert found.dtype == np.float64
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_hooks_are_removed_also_after_an_error(model: Small, image: Tensor) -> None:
    before = state_of(model)
    with torch.no_grad():
        activation_map(model, 'body', scored(model, image))
    with pytest.raises(ZeroDivisionError):
        activation_map(model, 'body', lambda: (model(image), 1 / 0))
    assert state_of(model) == before


@pytest.mark.parametrize(
    ('layer', 'score'),
    [
        ('unused', lambda m, x: m(x)[0, 0]), ('body', lambda m, x: (m(x) + m(x))[0, 0]),
        ('fc', lambda m, x: m(x)[0, 0]), ('body', lambda m, x: m(x.repeat(2, 1, 1, 1))[0, 0]),
        ('body', lambda m, x: m(x)[0, 0].detach()),
        ('body', lambda m, x: (m(x), torch.zeros(1, requires_grad=True).sum())[1]),  # a gradient from elsewhere
    ],
)  # fmt: skip
def test_layers_without_a_map(model: Small, image: Tensor, layer: str, score: Callable) -> None:
    before = state_of(model)
    with pytest.raises(UserError, match=layer):
        activation_map(model, layer, lambda: (score(model, image), None))
    assert state_of(model) == before


def test_damaged_weights_and_a_missing_library(model: Small, image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        model.body.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match='not finite'):
        activation_map(model, 'body', scored(model, image))
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(UserError, match='grad-cam'):
        activation_map(model, 'body', scored(model, image))

"""Whole models on a GPU: the losses, gradients and predictions of a CPU, and mixed precision."""

import copy

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from mmres2net.engine.precision import BFloat16OptimWrapper
from tests.engine.test_speed import _libraries_in_float64, batch, build, predict, train  # noqa: F401 - a fixture
from tests.gpu.compare import ROUNDOFF, bound, error

pytestmark = pytest.mark.gpu
MODELS = ['faster_rcnn_r2n50.py', 'mask_rcnn_r2n50.py', 'deeplabv3plus_r2n50.py']


@pytest.mark.parametrize('name', MODELS)
def test_training_step_and_predictions(name: str, device: str) -> None:
    plain = build(name)
    model = copy.deepcopy(plain).to(device)
    wanted, given = train(plain, name), train(model, name)
    assert wanted.keys() == given.keys()
    assert all(value.device.type == device for value in given.values())
    assert max(error([given[key]], [wanted[key].double()]) for key in wanted) < 1e-7
    for mine, theirs in zip(predict(model, name), predict(plain, name), strict=True):
        assert mine.numel()
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-7, atol=1e-7)
    found = [{key: value for key, value in train(one.float(), name).items() if 'loss' in key} for one in (plain, model)]
    of_cpu, of_device = (error(one.values(), [wanted[key].double() for key in one]) for one in found)
    assert of_device < bound(4 * of_cpu)


@pytest.mark.parametrize('kind', ['bfloat16', *['float16'] * torch.cuda.is_available()])
@pytest.mark.parametrize('name', MODELS)
def test_steps_in_mixed_precision(name: str, kind: str, device: str) -> None:
    """Losses are near those of float32, no weight is lost, and the scale of losses is in the wrapper's state."""
    found, data = [], batch(name)
    for amp in (False, True):
        model: nn.Module = build(name).float().to(device).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        wrapper = OptimWrapper(optimizer)
        if amp:
            half = {'float16': lambda o: AmpOptimWrapper('dynamic', 'float16', optimizer=o)}
            wrapper = half.get(kind, BFloat16OptimWrapper)(optimizer)
        torch.manual_seed(1)
        found.append([float(model.train_step(copy.deepcopy(data), wrapper)['loss']) for _ in range(3)])
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.tensor(found).isfinite().all()
    # A step in half precision rounds some hundred times, in random directions: by ten roundoffs at most.
    assert found[1][0] == pytest.approx(found[0][0], rel=10 * ROUNDOFF[kind])
    assert ('loss_scaler' in wrapper.state_dict()) == (kind == 'float16')

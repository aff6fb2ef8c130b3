"""`optimize` inside of a detector and a segmentor: backbone, neck and heads together."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmres2net.deploy import fast, optimize
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from tests.reference.compare import randomise


def build(name: str) -> nn.Module:
    cfg = single_process_norms(without_weights(load_config(name))[0])[0]
    init_default_scope(cfg.default_scope)
    model = randomise(MODELS.build(cfg.model)).float()
    model.eval()
    return model


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What comes before the decisions (thresholds, suppression): logits of a segmentor, maps of a detector's RPN."""
    with torch.no_grad():
        maps = model.extract_feat(x)
        if hasattr(model, 'decode_head'):
            return [*maps, model.decode_head(maps)]
        scores, deltas = model.rpn_head(maps)
        return [*maps, *scores, *deltas]


@pytest.mark.parametrize('name', ['configs/demo/mask_rcnn_r2n50.py', 'configs/demo/deeplabv3plus_r2n50.py'])
def test_same_function(name: str) -> None:
    plain = build(name)
    quick = optimize(copy.deepcopy(plain))
    for size in ((97, 129), (129, 97)):
        x = torch.randn(1, 3, *size)
        for got, wanted in zip(outputs(quick, x), outputs(plain, x), strict=True):
            assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert list(quick.state_dict()) == list(plain.state_dict())
    kinds = {type(module) for module in quick.modules()}
    assert {fast.FastRes2Net, fast.FastBottle2neck, fast.FastStage, fast.FastChain, fast.FastConvModule} <= kinds

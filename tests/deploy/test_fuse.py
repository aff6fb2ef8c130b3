"""``fuse``: a copy of plain modules with the same outputs, and everything that cannot be folded left as it is."""

import copy
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from mmres2net.deploy import fuse, use_fused_blocks
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from tests.deploy.networks import IMAGE, TOLERANCE, assert_same, features, fused_pair, network
from tests.deploy.test_blocks import MODIFICATIONS, norm_on_the_batch, pruned
from tests.reference.compare import randomise


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def test_original_stays() -> None:
    plain = network()
    state = copy.deepcopy(plain.state_dict())
    fused = fuse(plain)
    assert_same(fused, plain)
    assert norms_in(fused) == 0 < norms_in(plain)
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())


def test_arithmetic_in_float64() -> None:
    plain = network(se_reduction=4, deep_stem=True, avg_down=True).double()
    assert_same(fuse(plain), plain, IMAGE.double(), 1e-12)


def test_of_a_model_in_training_with_fused_blocks() -> None:
    plain, fast = fused_pair(frozen_stages=1)
    fused = fuse(fast.train())
    assert not fused.training
    assert_same(fused, plain)
    assert {type(module).__module__.split('.')[0] for module in fused.modules()} == {'mmres2net', 'torch'}
    assert not any('deploy' in type(module).__module__ for module in fused.modules())
    assert_same(fuse(fused), plain)
    assert use_fused_blocks(fused) == 7
    for _ in range(3):
        assert_same(fused, plain)


def test_hooks_compilation_export_and_flop_counters_understand_it() -> None:
    plain = network(depths=(1, 2))
    fused = fuse(plain)
    seen: list[Tensor] = []
    fused.layer1[0].convs[1].register_forward_hook(lambda module, inputs, out: seen.append(out))
    assert_same(fused, plain)
    assert len(seen) == 1
    compiled = torch.compile(fuse(plain), backend='aot_eager', fullgraph=True)
    exported = torch.export.export(fuse(plain), (IMAGE,)).module()
    for model in (compiled, exported):
        assert_same(model, plain)
    counts = []
    for model in (plain, fuse(plain)):
        with FlopCounterMode(display=False) as counter:
            features(model)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 1e6


@pytest.mark.parametrize(
    'modify', [m for m in MODIFICATIONS if m not in (pruned, norm_on_the_batch)], ids=lambda f: f.__name__
)
def test_modified_models_compute_what_they_say(modify: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = network()
    with monkeypatch.context() as patch:
        modify(plain, patch)
        assert_same(fuse(plain), plain)


CONV_MODULES: dict[str, dict[str, Any]] = {
    'norm and relu': dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')),
    'norm': dict(norm_cfg=dict(type='BN'), act_cfg=None),
    'synchronized': dict(norm_cfg=dict(type='SyncBN')),
    'leaky': dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU')),
    'depthwise': dict(norm_cfg=dict(type='BN'), groups=8),
    'biased': dict(norm_cfg=dict(type='BN'), bias=True),
    'no norm': dict(norm_cfg=None),
    'group norm': dict(norm_cfg=dict(type='GN', num_groups=2)),
    'norm first': dict(norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act')),
    'activation first': dict(norm_cfg=dict(type='BN'), order=('conv', 'act', 'norm')),
    'reflecting': dict(norm_cfg=dict(type='BN'), padding_mode='reflect'),
    'spectral': dict(norm_cfg=dict(type='BN'), with_spectral_norm=True),
}
FOLDED = {'norm and relu', 'norm', 'synchronized', 'leaky', 'depthwise', 'biased', 'reflecting'}


@pytest.mark.parametrize('name', CONV_MODULES)
def test_conv_modules(name: str) -> None:
    """mmcv's ConvModule, which necks and heads consist of, with each switch of its forward pass."""
    plain = randomise(revert_sync_batchnorm(ConvModule(8, 8, 3, padding=1, **CONV_MODULES[name]))).float().eval()
    fused = fuse(plain)
    assert norms_in(fused) == (0 if name in FOLDED else norms_in(plain))
    x = torch.randn(2, 8, 9, 11)
    with torch.no_grad():
        for flags in ({}, {'activate': False}, {'norm': False}, {'activate': False, 'norm': False}):
            if name in FOLDED and 'norm' in flags:
                with pytest.raises(RuntimeError, match='norm=False'):
                    fused(x, **flags)
                continue
            wanted = plain(x, **flags)
            assert (fused(x, **flags) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def test_sequences() -> None:
    """What is foldable in a sequence is folded; the order and the numbering of the rest are kept."""
    shared = nn.Conv2d(4, 4, 1)
    parts = [
        nn.AvgPool2d(2), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), shared, nn.BatchNorm2d(4), shared,
        nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.BatchNorm2d(5), nn.Conv3d(5, 5, 1),
    ]  # fmt: skip
    plain = randomise(nn.Sequential(*parts)).float().eval()
    fused = fuse(plain)
    x = torch.randn(5, 3, 20, 20)
    with torch.no_grad():
        for model in (plain, fused):
            model[11] = nn.Identity()
        wanted = plain(x)
        assert (fused(x) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert [type(fused[i]) for i in (2, 5, 7, 10)] == [nn.Identity, nn.Identity, nn.Identity, nn.BatchNorm2d]


class Shifted(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class BatchNormAct(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


def weight_normalized() -> nn.Module:
    return nn.Sequential(parametrize_weight(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))


def parametrize_weight(conv: nn.Conv2d) -> nn.Module:
    parametrize.register_parametrization(conv, 'weight', nn.Tanh())
    return conv


@pytest.mark.parametrize(
    'build',
    [
        lambda: Shifted(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct(4)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
        weight_normalized,
    ],
)
def test_what_is_not_known_is_left_alone(build: Any) -> None:
    plain = randomise(build()).float().eval()
    fused = fuse(plain)
    assert [type(module) for module in fused.modules()] == [type(module) for module in plain.modules()]
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(fused(x), plain(x))


@pytest.mark.parametrize('name', ['configs/demo/mask_rcnn_r2n50.py', 'configs/demo/deeplabv3plus_r2n50.py'])
def test_whole_models(name: str) -> None:
    cfg = single_process_norms(without_weights(load_config(name))[0])[0]
    init_default_scope(cfg.default_scope)
    plain = randomise(MODELS.build(cfg.model)).float()
    plain.eval()
    fused = fuse(plain)
    assert norms_in(fused) == 0
    x = torch.randn(1, 3, 97, 129)
    with torch.no_grad():
        for got, wanted in zip(maps(fused, x), maps(plain, x), strict=True):
            assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What comes before decisions (thresholds, suppression): a segmentor's logits, or a detector's RPN outputs."""
    found = model.extract_feat(x)
    if hasattr(model, 'decode_head'):
        return [*found, model.decode_head(found)]
    scores, deltas = model.rpn_head(found)
    return [*found, *scores, *deltas]

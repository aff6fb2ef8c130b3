"""``fuse``: a copy of plain modules with the same outputs, and everything that cannot be folded left as it is."""

import copy
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from mmres2net.deploy import fuse
from tests.deploy.networks import IMAGE, assert_close, assert_same, network, pair
from tests.reference.compare import randomise


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def test_original_stays_and_the_copy_can_be_hooked_compiled_and_exported() -> None:
    plain = network(depths=(1, 2))
    state = copy.deepcopy(plain.state_dict())
    fused = fuse(plain)
    assert norms_in(fused) == 0 < norms_in(plain)
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    seen: list[Tensor] = []
    fused.layer1[0].convs[1].register_forward_hook(lambda module, inputs, out: seen.append(out))
    compiled = torch.compile(fuse(plain), backend='aot_eager', fullgraph=True)
    exported = torch.export.export(fuse(plain), (IMAGE,)).module()
    for model in (fused, compiled, exported):
        assert_same(model, plain)
    assert len(seen) == 1


def test_of_a_model_in_training_with_fused_blocks() -> None:
    plain, fast = pair(frozen_stages=1)
    fused = fuse(fast.train())
    assert not fused.training
    assert_same(fused, plain)
    assert {type(module).__module__.split('.')[0] for module in fused.modules()} == {'mmres2net', 'torch'}
    assert not any('deploy' in type(module).__module__ for module in fused.modules())
    assert_same(fuse(fused), plain)


BN = dict(norm_cfg=dict(type='BN'))
FOLDED: dict[str, dict[str, Any]] = {
    'norm and relu': BN, 'norm': BN | dict(act_cfg=None), 'synchronized': dict(norm_cfg=dict(type='SyncBN')),
    'leaky': BN | dict(act_cfg=dict(type='LeakyReLU')), 'depthwise': BN | dict(groups=8),
    'biased': BN | dict(bias=True), 'reflecting': BN | dict(padding_mode='reflect'),
}  # fmt: skip
KEPT: dict[str, dict[str, Any]] = {
    'no norm': dict(norm_cfg=None), 'group norm': dict(norm_cfg=dict(type='GN', num_groups=2)),
    'norm first': BN | dict(order=('norm', 'conv', 'act')), 'spectral': BN | dict(with_spectral_norm=True),
    'activation first': BN | dict(order=('conv', 'act', 'norm')),
}  # fmt: skip


@pytest.mark.parametrize('name', [*FOLDED, *KEPT])
def test_conv_modules(name: str) -> None:
    options = (FOLDED | KEPT)[name]
    plain = randomise(revert_sync_batchnorm(ConvModule(8, 8, 3, padding=1, **options))).float().eval()
    fused = fuse(plain)
    assert norms_in(fused) == (0 if name in FOLDED else norms_in(plain))
    x = torch.randn(2, 8, 9, 11)
    with torch.no_grad():
        for flags in ({}, {'activate': False}):
            assert_close(fused(x, **flags), plain(x, **flags))


def test_sequences() -> None:
    shared = nn.Conv2d(4, 4, 1)
    parts = [
        nn.AvgPool2d(2), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), shared, nn.BatchNorm2d(4), shared,
        nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.BatchNorm2d(5),
    ]  # fmt: skip
    plain = randomise(nn.Sequential(*parts)).float().eval()
    fused = fuse(plain)
    x = torch.randn(5, 3, 20, 20)
    with torch.no_grad():
        assert_close(fused(x), plain(x))
    assert [type(fused[i]) for i in (2, 5, 7, 10)] == [nn.Identity, nn.Identity, nn.Identity, nn.BatchNorm2d]


class Shifted(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def test_what_is_not_known_is_left_alone() -> None:
    x, norm = torch.randn(2, 3, 8, 8), nn.BatchNorm2d(4)
    for plain in (Shifted(nn.Conv2d(3, 4, 3), norm), nn.Sequential(nn.ConvTranspose2d(3, 4, 3), norm)):
        randomise(plain).float().eval()
        with torch.no_grad():
            assert torch.equal(fuse(plain)(x), plain(x))

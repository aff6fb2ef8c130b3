"""The rewritten blocks compute what the blocks do, in as few channels."""

import copy

import pytest
import torch
from torch import nn

from mmres2net.export.blocks import CarryingBlock, FoldedBlock, rewritten
from mmres2net.models import Bottle2neck, Res2LayerHead, Res2Net, Res2NetDLA
from tests.support.tiny import enliven

NETWORKS = {
    'carries all of the last split': dict(depths=(2, 2), base_width=12),
    'carries a part': dict(depths=(3, 2), base_width=26),
    'carries one channel a carrier': dict(depths=(2, 2), base_width=15, scales=6),
    'more room than there is to carry': dict(depths=(2, 2), base_width=9, scales=8),
    'three splits': dict(depths=(2, 2), base_width=13, scales=3),
    'two splits': dict(depths=(2, 2), base_width=13, scales=2),
    'no splits': dict(depths=(2, 2), base_width=20, scales=1),
    'aligned': dict(depths=(2, 2), base_width=16),
    'groups': dict(depths=(2, 2), base_width=6, cardinality=2),
    'attention': dict(depths=(2, 2), base_width=14, se_reduction=16),
    'deep stem and pooled shortcut': dict(depths=(2, 2), base_width=14, deep_stem=True, avg_down=True),
    'as in mmdet': dict(depths=(2, 2), base_width=14, stage_pool='mmdet'),
    'as in maskrcnn-benchmark': dict(depths=(2, 2), base_width=14, stage_pool='maskrcnn'),
    'dilated': dict(depths=(2, 2), base_width=14, strides=(1, 1), dilations=(1, 2)),
    'dilated from the start': dict(depths=(2, 2), base_width=14, strides=(1, 1), dilations=(2, 4)),
}


def lively(network: nn.Module) -> nn.Module:
    network.init_weights()
    enliven(network)
    return network.eval().double()


@pytest.mark.parametrize('options', NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize('size', [(32, 48), (33, 45)])
def test_features_are_the_same(options: dict, size: tuple[int, int]) -> None:
    options = {key: value * 2 if key in ('depths', 'strides', 'dilations') else value for key, value in options.items()}
    network = lively(Res2Net(**options, out_indices=(0, 1)))
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        for expected, got in zip(network(x), rewritten(network)(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


def test_a_shared_stage_and_other_trees_are_the_same() -> None:
    head = lively(Res2LayerHead(depths=(1, 1, 1, 2), base_width=7))
    tree = lively(Res2NetDLA('res2net_dla60_4s', out_indices=(0, 1)))
    with torch.no_grad():
        for network, shape in ((head, (3, 1024, 7, 7)), (tree, (1, 3, 64, 48))):
            x = torch.randn(shape, dtype=torch.float64)
            expected, got = network(x), rewritten(network)(x)
            pairs = zip(expected, got, strict=True) if isinstance(expected, tuple) else [(expected, got)]
            for one, other in pairs:
                torch.testing.assert_close(other, one, rtol=0, atol=1e-11 * float(one.abs().max()))


def test_no_channel_is_computed_on_zeros() -> None:
    """Spare channels are filled with the last split, so the 1x1 convolutions have as many channels as before."""
    network = rewritten(Res2Net('res2net50_26w_4s'))
    blocks = [module for module in network.modules() if isinstance(module, FoldedBlock)]
    assert len(blocks) == 16
    carrying = [block for block in blocks if isinstance(block, CarryingBlock)]
    assert [block.width for block in carrying] == [26] * 3 + [52] * 4  # the other widths are multiples of 8
    for block in carrying:
        assert sum(conv.out_channels for conv in block.conv1s) == 4 * block.width
        assert block.conv3.in_channels == 4 * block.width
        assert all(conv.out_channels % 8 == 0 for conv in [*block.conv1s, *block.convs])


def test_no_norm_is_left_and_the_model_stays_as_it_was() -> None:
    network = lively(Res2Net(depths=(1, 1, 1, 1), base_width=14))
    before = copy.deepcopy(network.state_dict())
    modules = list(rewritten(network).modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)
    assert not any(isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1) for m in modules)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_what_is_not_known_stays_as_it_is() -> None:
    plugins = [dict(cfg=dict(type='ContextBlock', ratio=1 / 4), position='after_conv2', stages=(True,) * 4)]
    network = rewritten(Res2Net(depths=(1, 1, 1, 1), base_width=14, plugins=plugins))
    assert sum(isinstance(module, Bottle2neck) for module in network.modules()) == 4

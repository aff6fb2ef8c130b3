"""The shared head is the last stage of the backbone, and loads its part of the backbone's checkpoint."""

import pytest
import torch
from torch import Tensor, nn

from mmres2net.models import Res2LayerHead, Res2Net
from tests.reference.compare import assert_close, randomise, with_weights

SMALL = dict(depths=(1, 1, 2, 2), base_width=8)


class Whole(nn.Module):
    """Backbone up to C4 and head, as one network with the outputs of a complete backbone."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.backbone = Res2Net(**options, out_indices=(0, 1, 2))
        self.head = Res2LayerHead(**options, norm_eval=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(x)
        return (*features, self.head(features[-1]))


@pytest.mark.parametrize('stage_pool', ['official', 'mmdet', 'maskrcnn'])
def test_split_network_computes_what_the_whole_one_does(stage_pool: str) -> None:
    split = randomise(Whole(**SMALL, stage_pool=stage_pool))
    weights = {name.split('.', 1)[1]: value for name, value in split.state_dict().items()}
    whole = with_weights(lambda: Res2Net(**SMALL, stage_pool=stage_pool), weights)
    x = torch.randn(2, 3, 65, 50, dtype=torch.float64)
    for ours, expected in zip(split.eval()(x), whole.eval()(x), strict=True):
        assert_close(ours, expected, 1e-12, stage_pool)


def test_norms_keep_their_statistics_in_training_by_default() -> None:
    head = Res2LayerHead(**SMALL).train()
    assert {m.training for m in head.modules() if isinstance(m, nn.BatchNorm2d)} == {False}
    assert head.training
    assert all(p.requires_grad for p in head.parameters())


def test_options_reach_the_blocks() -> None:
    head = Res2LayerHead(**SMALL, stage=2, stride=1, dilation=2, norm_cfg=dict(type='BN', requires_grad=False))
    blocks = list(head.layer3)
    assert [conv.dilation for block in blocks for conv in block.convs] == [(2, 2)] * 6
    assert head(torch.randn(1, 512, 8, 8)).shape == (1, 1024, 8, 8)
    assert not any(p.requires_grad for m in head.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    head = Res2LayerHead(**SMALL, dcn=dict(type='DCNv2', deform_groups=1))
    head.init_weights()
    offsets = [m.conv_offset for m in head.modules() if hasattr(m, 'conv_offset')]
    assert len(offsets) == 6
    assert not any(bool(p.any()) for offset in offsets for p in offset.parameters())


def test_one_clear_error_each() -> None:
    wrong = dict(stage=0, stride=0, dilation='2', stage_pool='none')
    mistakes = [(dict(SMALL, **{name: value}), f'{name}={value!r}') for name, value in wrong.items()]
    mistakes += [(dict(arch='res2net51'), "'res2net51'"), (dict(arch='dla60'), 'DLA')]
    for options, message in (*mistakes, (dict(arch='res2net50_26w_4s', depths=(1, 1, 1, 1)), 'depths')):
        with pytest.raises(ValueError, match=message):
            Res2LayerHead(**options)

"""Networks in plain PyTorch: shapes, and weights that are those of the file."""

from pathlib import Path

import pytest
import torch

from mmres2net import create_model
from mmres2net.errors import UserError
from mmres2net.weights.fetching import IMAGENET

IMAGE = torch.randn(2, 3, 64, 96)


@pytest.mark.parametrize('arch', ['res2net50_26w_4s', 'res2net_dla60_4s', 'res2next29_6c24w4s'])
def test_features_have_the_channels_and_strides_they_say(arch: str) -> None:
    model = create_model(arch, features_only=True, out_indices=(1, 2))
    maps = model(IMAGE)
    assert [tuple(x.shape) for x in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(model.channels, model.strides, strict=True)
    ]
    assert model.normalization == (None if '29' in arch else IMAGENET)


@pytest.mark.parametrize('arch', ['res2net50_14w_8s', 'res2net_dla60_4s'])
def test_weights_come_with_their_classifier(arch: str, tmp_path: Path) -> None:
    """A classifier of other classes starts random."""
    timm = pytest.importorskip('timm')
    theirs = timm.create_model({'res2net_dla60_4s': 'dla60_res2net'}.get(arch, arch), num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / 'weights.pth')
    ours = create_model(arch, pretrained=str(tmp_path / 'weights.pth'), num_classes=10).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGE), theirs(IMAGE), rtol=1e-4, atol=1e-4)
        pooled = create_model(arch, pretrained=str(tmp_path / 'weights.pth'), num_classes=0).eval()
        torch.testing.assert_close(pooled(IMAGE), theirs.forward_head(theirs.forward_features(IMAGE), pre_logits=True))
    assert create_model(arch, pretrained=str(tmp_path / 'weights.pth'), num_classes=3)(IMAGE).shape == (2, 3)


def test_mistakes() -> None:
    for arch, options in (
        ('res2net51', {}),
        ('res2net50_26w_4s', dict(num_classes=-1)),
        ('res2net50_26w_4s', dict(out_indices=(1,))),
        ('res2net50_26w_4s', dict(pretrained='absent.pth')),
        ('res2next29_6c24w4s', dict(pretrained=True)),
    ):
        with pytest.raises(ValueError, match=r'\S'):
            create_model(arch, **options)
    assert issubclass(UserError, ValueError)

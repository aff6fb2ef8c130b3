"""What a model starts from is fetched, read and compared with the config before a run, over real HTTP."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmres2net.engine.weights import check_checkpoint, check_normalization, fetch_weights
from mmres2net.errors import UserError
from mmres2net.fetch.download import RetryPolicy
from tests.support.archive_server import Server, serving
from tests.support.hostile import hostile

RGB = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}
ARCH = 'res2net50_26w_4s'


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr('mmres2net.weights.fetching.RETRY', RetryPolicy(tries=1, pause=0.01, timeout=5.0))
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / 'hub'))
    yield tmp_path / 'hub' / 'checkpoints'
    torch.hub.set_dir(before)


def config(checkpoint: str, kind: str = 'Pretrained') -> Config:
    return Config(dict(model=dict(backbone=dict(init_cfg=dict(type=kind, checkpoint=checkpoint)))))


def saved() -> tuple[bytes, str]:
    """A checkpoint and the beginning of its hash."""
    buffer = io.BytesIO()
    torch.save({'conv1.weight': torch.ones(2, 2)}, buffer)
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()[:8]


def test_fetched_once_with_its_hash(server: Server, cache: Path) -> None:
    content, digest = saved()
    name = f'net-{digest}.pth'
    server.files[name] = content
    fetch_weights(config(server.url(name)))
    assert (cache / name).read_bytes() == content
    asked = len(server.log)
    fetch_weights(config(server.url(name)))
    assert len(server.log) == asked


def test_unreachable_weights_name_the_ways_out(server: Server, cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_weights(config(server.url('net-0123abcd.pth')))
    text = str(caught.value)
    assert 'HTTP 404' in text
    assert f'put it at {cache / "net-0123abcd.pth"}' in text
    assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in text
    assert '--from-scratch' in text


def test_names_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'^model\.backbone\.init_cfg\.checkpoint=.*no checkpoint at .*absent\.pth'):
        fetch_weights(config(str(tmp_path / 'absent.pth')))
    with pytest.raises(UserError, match='torchvision://resnet5: there are no weights of this name'):
        fetch_weights(config('torchvision://resnet5'))
    with pytest.raises(UserError, match=f'no checkpoint at {ARCH}'):  # to MMEngine's initialiser this is a file
        fetch_weights(config(ARCH))
    with pytest.raises(UserError, match='checkpoint=None'):
        fetch_weights(Config(dict(model=dict(init_cfg=dict(type='Pretrained')))))


def test_the_flag_opens_files_of_the_host_alone(tmp_path: Path) -> None:
    path, marker = str(hostile(tmp_path / 'net.pth', tmp_path / 'marker')), tmp_path / 'marker'
    for kind, allowed in (('Pretrained', False), ('mmres2net.Pretrained', False), ('mmres2net.Pretrained', True)):
        with pytest.raises(UserError, match=r'posix\.system'):
            fetch_weights(config(path, kind), allow_pickle=allowed)
    with pytest.raises(UserError, match=r'^named by --resume: .*posix\.system'):
        check_checkpoint(path, 'named by --resume')
    assert not marker.exists()
    fetch_weights(config(path), allow_pickle=True)
    assert marker.exists()


def test_initialisers_behind_ours_would_overwrite_it(tmp_path: Path) -> None:
    torch.save({'a': torch.ones(1)}, tmp_path / 'net.pth')
    ours, other = dict(type='mmres2net.Pretrained', checkpoint=str(tmp_path / 'net.pth')), dict(type='Kaiming')
    with pytest.raises(UserError, match='must be the last'):
        fetch_weights(Config(dict(model=dict(init_cfg=[ours, other]))))
    fetch_weights(Config(dict(model=dict(init_cfg=[other, ours]))))


# --- pixels -----------------------------------------------------------------------------------------------------------


def detector(preprocessor: dict[str, Any], kind: str = 'mmres2net.Pretrained', **backbone: Any) -> Config:
    init_cfg = dict(type=kind, checkpoint=ARCH)
    options = {'type': 'mmres2net.Res2Net', 'arch': ARCH, 'init_cfg': init_cfg, **backbone}
    model = dict(data_preprocessor=dict(type='DetDataPreprocessor', **preprocessor), backbone=options)
    return Config(dict(default_scope='mmdet', model=model))


def test_right_pixels_pass() -> None:
    assert check_normalization(detector({**RGB, 'bgr_to_rgb': True})) == []
    computed = {key: [value / 255 * 255 + 1e-9 for value in values] for key, values in RGB.items()}
    assert check_normalization(detector({**computed, 'bgr_to_rgb': True})) == []
    classifier = detector({**RGB, 'to_rgb': True})
    classifier.default_scope = 'mmpretrain'
    assert check_normalization(classifier) == []


def test_wrong_pixels_are_refused_with_the_lines_to_write() -> None:
    caffe = detector({'mean': [103.53, 116.28, 123.675], 'std': [1.0, 1.0, 1.0], 'bgr_to_rgb': False})
    with pytest.raises(UserError) as caught:
        check_normalization(caffe)
    text = str(caught.value)
    assert f'the weights {ARCH} (model.backbone.init_cfg.checkpoint) want other pixels' in text
    assert 'model.data_preprocessor.mean [103.53, 116.28, 123.675] -> [123.675, 116.28, 103.53]' in text
    assert '"model.data_preprocessor.std=[58.395,57.12,57.375]"' in text
    assert '"model.data_preprocessor.bgr_to_rgb=True"' in text
    assert caffe.model.data_preprocessor.mean == [103.53, 116.28, 123.675]  # looked at, not changed
    with pytest.raises(UserError, match='bgr_to_rgb None -> True'):
        check_normalization(detector(RGB))


def test_pixels_that_are_not_ours_to_judge() -> None:
    wrong = {'mean': [0.0] * 3, 'std': [1.0] * 3, 'bgr_to_rgb': False}
    assert check_normalization(detector(wrong, kind='Pretrained')) == []
    assert check_normalization(detector(wrong, in_channels=1)) == []
    unknown = detector(wrong)
    del unknown.model['data_preprocessor']
    (note,) = check_normalization(unknown)
    assert f'whether images are normalised as {ARCH} wants cannot be told: this config has no data_preprocessor' in note


def test_pixels_of_timm_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = detector({**RGB, 'bgr_to_rgb': True})
    cfg.model.backbone.init_cfg.checkpoint = 'timm://res2net50_26w_4s'
    assert check_normalization(cfg) == []
    import timm

    other = timm.get_pretrained_cfg('res2net50_26w_4s')
    other.mean = (0.5, 0.5, 0.5)
    monkeypatch.setattr(timm, 'get_pretrained_cfg', lambda *_, **__: other)
    with pytest.raises(UserError, match=r'mean \[.*\] -> \[127\.5, 127\.5, 127\.5\]'):
        check_normalization(cfg)

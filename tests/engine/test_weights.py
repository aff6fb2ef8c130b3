"""What a model starts from is fetched, read and compared with the config before a run, over real HTTP."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit

from mmres2net.engine import weights
from mmres2net.engine.weights import check_checkpoint, check_normalization, fetch_weights, load_state_strictly
from mmres2net.errors import UserError
from mmres2net.weights.fetching import PUBLISHED
from mmres2net.weights.reading import unwrap
from tests.support.archive_server import retry_soon, serving
from tests.support.hostile import hostile
from tests.weights.test_fetching import CONTENT, NAME

RGB = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}
ARCH = 'res2net50_26w_4s'


@pytest.fixture(autouse=True)
def _one_try(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retry_soon(monkeypatch, tries=1)


def config(checkpoint: str, kind: str = 'Pretrained') -> Config:
    return Config(dict(model=dict(backbone=dict(init_cfg=dict(type=kind, checkpoint=checkpoint)))))


def test_fetched_once_or_the_ways_out_are_named(hub: Path) -> None:
    name = 'net-0123abcd.pth'
    with serving() as server, pytest.raises(UserError) as caught:
        fetch_weights(config(server.url(name)))
    ways_out = ('HTTP 404', str(hub / name), '--cfg-options model.backbone.init_cfg.checkpoint', '--from-scratch')
    assert [way for way in ways_out if way not in str(caught.value)] == []
    with serving() as server:
        server.files[NAME] = CONTENT
        for _ in range(2):
            fetch_weights(config(server.url(NAME)))
        assert len(server.log) == 1
    assert (hub / NAME).read_bytes() == CONTENT


def test_names_that_are_no_weights() -> None:
    names = {'absent.pth': r'^model\.backbone\.init_cfg\.checkpoint=.*absent\.pth', None: 'checkpoint=None'}
    names |= {ARCH: f'no checkpoint at {ARCH}'}  # to MMEngine's initialiser this is a file
    for name, words in {**names, 'torchvision://resnet5': 'torchvision://resnet5'}.items():
        with pytest.raises(UserError, match=words):
            fetch_weights(config(name))


def test_pretrained_options_of_any_form_are_looked_at(tmp_path: Path) -> None:
    torch.save({'a': torch.ones(1)}, tmp_path / 'good.pth')
    good, bad = ({'type': PretrainedInit, 'checkpoint': str(tmp_path / name)} for name in ('good.pth', 'absent.pth'))
    fetch_weights(Config(dict(model=dict(init_cfg=good, backbone=dict(type='TIMMBackbone', pretrained=True)))))
    for part in (dict(pretrained=bad['checkpoint']), dict(heads=[dict(init_cfg=(dict(type='Kaiming'), bad))])):
        with pytest.raises(UserError, match=r'absent\.pth'):
            fetch_weights(Config(dict(model=dict(init_cfg=good, **part))))


def test_the_flag_is_for_files_of_mmengine_only(tmp_path: Path) -> None:
    path, marker = str(hostile(tmp_path / 'net.pth', tmp_path / 'marker')), tmp_path / 'marker'
    for kind, allowed in (('Pretrained', False), ('mmres2net.Pretrained', False), ('mmres2net.Pretrained', True)):
        with pytest.raises(UserError, match=r'posix\.system'):
            fetch_weights(config(path, kind), allow_pickle=allowed)
    with pytest.raises(UserError, match=r'^named by --resume: .*posix\.system'):
        check_checkpoint(path, 'named by --resume')
    assert not marker.exists()
    fetch_weights(config(path), allow_pickle=True)
    assert marker.exists()


def test_initializers_after_ours_would_overwrite_it(tmp_path: Path) -> None:
    torch.save({'a': torch.ones(1)}, tmp_path / 'net.pth')
    ours, other = dict(type='mmres2net.Pretrained', checkpoint=str(tmp_path / 'net.pth')), dict(type='Kaiming')
    with pytest.raises(UserError, match=r'init_cfg\.0\.checkpoint'):
        fetch_weights(Config(dict(model=dict(init_cfg=[ours, other]))))
    fetch_weights(Config(dict(model=dict(init_cfg=[other, ours]))))


def detector(preprocessor: dict[str, Any], kind: str = 'mmres2net.Pretrained', **backbone: Any) -> Config:
    init_cfg = dict(type=kind, checkpoint=ARCH)
    options = {'type': 'mmres2net.Res2Net', 'arch': ARCH, 'init_cfg': init_cfg, **backbone}
    model = dict(data_preprocessor=dict(type='DetDataPreprocessor', **preprocessor), backbone=options)
    return Config(dict(default_scope='mmdet', model=model))


def test_right_normalization_passes_and_that_of_timm_is_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_normalization(detector({**RGB, 'bgr_to_rgb': True})) == []
    computed = {key: [value / 255 * 255 + 1e-9 for value in values] for key, values in RGB.items()}
    assert check_normalization(detector({**computed, 'bgr_to_rgb': True})) == []
    classifier = detector({**RGB, 'to_rgb': True}).to_dict()
    assert check_normalization(Config({**classifier, 'default_scope': 'mmpretrain'})) == []
    import timm

    cfg = detector({**RGB, 'bgr_to_rgb': True})
    cfg.model.backbone.init_cfg.checkpoint = 'timm://res2net50_26w_4s'
    assert check_normalization(cfg) == []
    other = timm.get_pretrained_cfg('res2net50_26w_4s')
    other.mean = (0.5, 0.5, 0.5)
    monkeypatch.setattr(timm, 'get_pretrained_cfg', lambda *_, **__: other)
    with pytest.raises(UserError, match=r'mean \[.*\] -> \[127\.5, 127\.5, 127\.5\]'):
        check_normalization(cfg)


def test_wrong_normalization_is_refused_with_the_settings_to_use() -> None:
    caffe = detector({'mean': [103.53, 116.28, 123.675], 'std': [1.0, 1.0, 1.0], 'bgr_to_rgb': False})
    before = caffe.to_dict()
    with pytest.raises(UserError) as caught:
        check_normalization(caffe)
    for setting in ('mean=[123.675,116.28,103.53]', 'std=[58.395,57.12,57.375]', 'bgr_to_rgb=True'):
        assert f'"model.data_preprocessor.{setting}"' in str(caught.value)
    assert caffe.to_dict() == before
    with pytest.raises(UserError, match='bgr_to_rgb None -> True'):
        check_normalization(detector(RGB))


def test_normalization_that_is_not_judged() -> None:
    """Who trained on images of another kind knows their statistics."""
    wrong = {'mean': [0.0] * 3, 'std': [1.0] * 3, 'bgr_to_rgb': False}
    assert check_normalization(detector(wrong, kind='Pretrained')) == []
    assert check_normalization(detector(wrong, in_channels=1)) == []
    cfg = detector(wrong)
    for own in ('/data/my_satellite.pth', 'https://my.host/net.pth', 'torchvision://resnet50'):
        cfg.model.backbone.init_cfg.checkpoint = own
        assert check_normalization(cfg) == []
    for known in (PUBLISHED[ARCH].url, 'res2net50', 'dla60_res2net'):
        cfg.model.backbone.init_cfg.checkpoint = known
        with pytest.raises(UserError, match=r'123\.675'):
            check_normalization(cfg)
    del cfg.model['data_preprocessor']
    (note,) = check_normalization(cfg)
    assert known in note


def test_strict_loading_is_that_of_mmengine() -> None:
    """Prefixes of wrappers, missing counters of batches, and modules that adapt what they load."""
    source, target = (torch.nn.Sequential(torch.nn.PReLU(size), torch.nn.BatchNorm1d(2)) for size in (4, 7))
    state = {f'module.{n}': t for n, t in source.state_dict().items() if not n.endswith('num_batches_tracked')}
    # As position embeddings of another image size do
    target.register_load_state_dict_pre_hook(lambda _, given, *__: given.update({'0.weight': torch.full((7,), 3.0)}))
    load_state_strictly(target, unwrap({'state_dict': state}), 'a.pth')
    assert target[0].weight.tolist() == [3.0] * 7
    other = {'bias': torch.zeros(5), 'mask_head.weight': torch.zeros(5)}
    with pytest.raises(UserError) as caught:  # one weight is missing, one has another shape, one is too many
        load_state_strictly(torch.nn.Linear(2, 3), other, 'b.pth')
    assert all(text in str(caught.value) for text in ('b.pth', ': weight', 'bias', 'mask_head.weight'))
    for start in ({'model': state}, {'mask_head.weight': torch.zeros(5)}):  # nothing would be loaded
        with pytest.raises(UserError):
            weights.log_left_out(source.state_dict(), start, 'c.pth')


def test_sharded_checkpoints_need_the_flag_and_stores_are_not_read(tmp_path: Path) -> None:
    sharded = tmp_path / 'epoch_1.pth'
    sharded.mkdir()
    (sharded / 'mp_rank_00_model_states.pt').touch()
    with pytest.raises(UserError, match='--allow-unsafe-checkpoint'):
        check_checkpoint(sharded, 'named by --resume')
    assert check_checkpoint(sharded, 'named by --resume', allow_pickle=True) == str(sharded)
    for absent in ('s3://bucket/a.pth', tmp_path / 'epoch_2.pth', tmp_path / 'empty'):
        with pytest.raises(UserError, match=r'no checkpoint|download'):
            check_checkpoint(absent, 'named by --resume', allow_pickle=True)

"""The benchmarks of whole models and of loading: configs at any size on any data, small runs."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from mmres2net.bench import common, loading, model
from mmres2net.bench.cli import main
from mmres2net.bench.setups import assemble, at_size
from mmres2net.data.layout import datasets_of
from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine.config import load_config
from tests.support.realdata import data_root

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return str(make_shapes(tmp_path_factory.mktemp('data') / 'shapes', spec=ShapesSpec(n_train=6, n_val=3)))


def assembled(config, shapes, **options):
    return assemble(config, data=shapes, embedded=True, **options)


def test_models_are_sound():
    for name, rows in model.MODELS.items():
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
        assert all(row.same_as in (None, *names) for row in rows)
        assert {row.name for row in rows if row.fast} == {row.name for row in rows if 'as the' in row.name}
        assert all(row.same_as for row in rows if row.fast or row.keep_memory)
        assert {one for pair in model._pairs(rows) for one in pair} <= set(names)
        assert name in {row.config for row in rows}
        for row in rows:
            load_config(row.config)


@pytest.mark.parametrize('name', model.MODELS)
def test_configs_run_anywhere(name, shapes):
    for row in model.MODELS[name]:
        cfg = assembled(row.config, shapes, backbone=row.backbone)
        assert 'Pretrained' not in cfg.pretty_text
        assert "'SyncBN'" not in str(cfg.model)
        assert all(cfg.model.backbone[key] == value for key, value in row.backbone.items())
        for part in ('train', 'test'):
            (dataset,) = datasets_of(cfg, part)
            assert dataset.data_root.startswith(shapes)
            assert dataset.metainfo


def test_the_stock_detector_is_mmdets_own_with_the_same_pipelines(shapes):
    stock = assembled('mmdet::faster-rcnn_r50_fpn_1x_coco', shapes, backbone=model.MMDET_BACKBONE)
    assert stock.model.backbone.type == 'mmdet.Res2Net'
    assert (stock.model.backbone.depth, stock.model.backbone.frozen_stages, stock.model.backbone.norm_eval) == (
        50,
        1,
        True,
    )
    ours = assembled('faster_rcnn_r2n50', shapes)
    for part in ('train', 'test'):
        kinds = [[one['type'] for one in datasets_of(cfg, part)[0].pipeline] for cfg in (stock, ours)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize('name', ['mmdet::faster-rcnn_r50_fpn_1x_coco', 'deeplabv3plus_r2n50'])
def test_all_images_have_one_size(name, shapes):
    original = assembled(name, shapes)
    before = original.pretty_text
    cfg = at_size(original, (64, 100))
    assert original.pretty_text == before
    for part in ('train', 'test'):
        (dataset,) = datasets_of(cfg, part)
        resizes = [one for one in dataset.pipeline if 'Resize' in one['type']]
        assert resizes == [{'type': 'Resize', 'scale': (100, 64), 'keep_ratio': False}]
        assert not any('Crop' in one['type'] for one in dataset.pipeline)
        assert dataset.pipeline[-1]['type'].startswith('Pack')
    preprocessor = cfg.model.data_preprocessor
    if 'deeplab' in name:
        assert preprocessor['size'] == preprocessor.test_cfg['size'] == (65, 113)


@pytest.mark.parametrize('name', [pytest.param('faster_rcnn_r2n50', marks=pytest.mark.slow), 'deeplabv3plus_r2n50'])
def test_weights_of_heads_depend_on_nothing_before(name, shapes):
    """Other processes have drawn other random numbers, and another backbone draws more of them."""
    from mmres2net.bench.whole import build, prepared

    states = []
    for seed, row in enumerate([row for row in model.MODELS[name] if not row.same_as][:2]):
        cfg = prepared(row.config, shapes, True, (64, 64), row.backbone)
        torch.manual_seed(seed)
        states.append(build(cfg, row.naming).state_dict())
    first, *others = ({key: each[key] for key in each if not key.startswith('backbone.')} for each in states)
    assert len(first) > 10
    for other in others:
        assert other.keys() == first.keys()
        assert all(torch.equal(other[key], first[key]) for key in first)
    backbones = [
        each['backbone.layer1.0.conv1.weight'] for each in states if 'backbone.layer1.0.convs.0.weight' in each
    ]
    assert all(torch.equal(each, backbones[0]) for each in backbones)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)


def test_dropout_is_back_afterwards():
    from mmres2net.bench.whole import without_dropout

    network = Dropping()
    x = torch.ones(50)
    with without_dropout(network):
        assert torch.equal(network.drop(x), x)
    assert network.drop.p == 0.5


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (
            ['model', '--config', 'faster_rcnn_r50'],
            '--config faster_rcnn_r50: choose from faster_rcnn_r2n50, mask_rcnn',
        ),
        (['model', '--data', 'no/where'], '--data no/where: no such folder'),
        (['model', '--batch', '0'], '--batch: choose 1 or more'),
        (['model', '--size', '320'], '--size 320: give height and width'),
        (['loading', '--config', 'deeplabv3plus_r2n50'], '--config deeplabv3plus_r2n50: choose from faster_rcnn_r2n50'),
        (['loading', '--workers', '-1'], '--images: choose 1 or more; --workers: 0 or more'),
    ],
)
def test_mistakes(flags, message, capsys):
    assert main(flags) == 2
    assert f'error: {message}' in capsys.readouterr().err


def test_config_names():
    assert model.config_name('configs/mask_rcnn_r2n50.py') == 'mask_rcnn_r2n50'


def run(tmp_path, *flags):
    files = ['--json', f'{tmp_path}/a.json', '--plot', f'{tmp_path}/a.png', '--page', f'{tmp_path}/page.md']
    assert main([*flags, '--repeats', '1', '--turn', '0.01', '--threads', '1', *files]) == 0
    assert (tmp_path / 'a.png').stat().st_size > 1000
    return json.loads((tmp_path / 'a.json').read_text()), (tmp_path / 'page.md').read_text()


def small_images(monkeypatch):
    from mmres2net.bench import setups

    monkeypatch.setattr(setups, 'SHAPES', ShapesSpec(n_train=6, n_val=3))


def test_loading_in_one_process(tmp_path, monkeypatch, in_this_process):
    small_images(monkeypatch)
    results, page = run(tmp_path, 'loading', '--images', '4', '--workers', '0')
    (case,) = results['cases']
    assert list(case['figures']) == ['stock', 'ours']
    assert case['differences']['ours'] == {f'image {i}': 0.0 for i in range(4)}
    parts = case['facts']['ours']['parts']
    assert list(parts)[:3] == ['LoadImageFromFile', 'LoadAnnotations', 'Resize']
    assert list(parts)[-2:] == ['collate', 'normalise, pad and stack (in the model)']
    assert all(milliseconds > 0 for milliseconds in parts.values())
    speed = 4 / case['figures']['ours']['seconds']
    assert re.search(rf'\| ours \(faster_rcnn_r2n50\) \|.*\| {speed:.1f} \|', page)
    assert f'| together | {sum(case["facts"]["stock"]["parts"].values()):.2f} | {sum(parts.values()):.2f} |' in page
    assert '<!-- loading-faster_rcnn_r2n50: begin -->' in page


def test_loaders_that_differ_are_not_timed(tmp_path, monkeypatch, capsys, in_this_process):
    small_images(monkeypatch)
    monkeypatch.setattr(loading, 'STOCK', {'faster_rcnn_r2n50': 'demo/faster_rcnn_r50'})
    assert main(['loading', '--images', '2', '--workers', '0', '--threads', '1']) == 1
    assert 'error: ours does not give what stock gives: image 0 differs by inf' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('name', model.MODELS)
def test_models_for_real(name, tmp_path):
    results, page = run(tmp_path, 'model', '--config', name, '--size', '96x128')
    for case in results['cases']:
        assert case['absent'] == {}
        assert [one for one in case['figures'] if one not in common.CEILING] == [row.name for row in model.MODELS[name]]
        assert set(case['differences']) == {row.name for row in model.MODELS[name] if row.same_as}
        assert all(found for found in case['differences'].values())
    assert f'<!-- model-{name}: begin -->' in page


@pytest.mark.slow
@pytest.mark.realdata
def test_loading_of_photographs(tmp_path):
    root = data_root('coco_mini')
    results, page = run(tmp_path, 'loading', '--data', str(root), '--images', '8', '--workers', '0', '1')
    assert [case['facts']['ours']['images'] for case in results['cases']] == [8, 8]
    assert 'images of coco_mini' in page
    assert np.allclose(list(results['cases'][1]['differences']['ours'].values()), 0)

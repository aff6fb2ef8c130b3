"""Every config: its entry in the metafile, its sources and pages; it is short, builds, and has fitting weights."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmres2net.engine.build import build_model
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from mmres2net.init_cfg import pretrained_nodes
from mmres2net.models import Res2LayerHead, Res2Net, Res2NetDLA
from mmres2net.paths import config_dir, list_configs
from tests.configs.pairs import CONFIGS, META, PAIRS, config_table
from tests.configs.test_twins import take_backbones
from tests.reference.complexity import count_parameters

# The paper's tables as printed, by table and row: errors, AP, mIoU; AP and AR by size; F and MAE of four data sets.
PAPER: dict[int, dict[str, tuple[float, ...]]] = {
    1: {
        'ResNet-50': (23.85, 7.13), 'Res2Net-50': (22.01, 6.15), 'Res2Net-50-299': (21.41, 5.88),
        'InceptionV3': (22.55, 6.44), 'ResNeXt-50': (22.61, 6.50), 'Res2NeXt-50': (21.76, 6.09),
        'DLA-60': (23.32, 6.60), 'Res2Net-DLA-60': (21.53, 5.80), 'DLA-X-60': (22.19, 6.13),
        'Res2NeXt-DLA-60': (21.55, 5.86), 'SENet-50': (23.24, 6.69), 'SE-Res2Net-50': (21.56, 5.94),
    },
    2: {'DenseNet-161': (22.35, 6.20), 'ResNet-101': (22.63, 6.44), 'Res2Net-101': (20.81, 5.57)},
    3: {
        '48w x 2s': (23.68, 6.47), '14w x 8s': (21.86, 6.14), '26w x 6s': (21.42, 5.87), '26w x 8s': (20.80, 5.63),
        '18w x 4s': (22.92, 6.67),
    },
    4: {
        'Wide ResNet': (20.50,), 'ResNeXt-29, 8c x 64w': (17.90,), 'ResNeXt-29, 16c x 64w': (17.31,),
        'DenseNet-BC (k = 40)': (17.18,), 'Res2NeXt-29, 6c x 24w x 4scale': (16.98,),
        'Res2NeXt-29, 8c x 25w x 4scale': (16.93,), 'Res2NeXt-29, 6c x 24w x 6scale': (16.79,),
        'ResNeXt-29, 8c x 64w-SE': (16.77,), 'Res2NeXt-29, 6c x 24w x 4scale-SE': (16.68,),
        'Res2NeXt-29, 8c x 25w x 4scale-SE': (16.64,), 'Res2NeXt-29, 6c x 24w x 6scale-SE': (16.56,),
    },
    5: {
        'VOC07 ResNet-50': (72.1,), 'VOC07 Res2Net-50': (74.4,),
        'COCO ResNet-50': (31.1, 51.4, 13.5, 35.4, 46.2, 42.8, 21.8, 48.6, 61.6),
        'COCO Res2Net-50': (33.7, 53.6, 14.0, 38.3, 51.1, 45.0, 23.2, 51.1, 65.3),
    },
    7: {
        'ResNet 50-layer': (77.0,), 'ResNet 101-layer': (78.5,), 'Res2Net 50-layer': (77.9,),
        'Res2Net 101-layer': (79.3,),
    },
    8: {
        'ResNet-50': (33.9, 55.2, 14.8, 36.0, 50.9, 45.9, 25.0, 49.3, 62.0),
        'Res2Net-50': (35.6, 57.6, 15.7, 37.9, 53.7, 47.2, 26.7, 50.3, 63.7),
    },
    9: {
        'ResNet-50': (0.910, 0.065, 0.823, 0.105, 0.894, 0.058, 0.748, 0.092),
        'Res2Net-50': (0.926, 0.056, 0.841, 0.099, 0.905, 0.050, 0.800, 0.071),
    },
}  # fmt: skip
# Rows that repeat another table's network: the config, and the values as printed.
REPEATED = {
    (3, 'ResNet-50, 64w'): ('imagenet/resnet50.py', (23.85, 7.13)),
    (3, '26w x 4s'): ('imagenet/res2net50_26w_4s.py', (22.01,)),  # with a top-5 error of 6.44, which is 6.15 in table 1
    (6, 'ResNet-50'): ('faster_rcnn_r50_c4.py', (13.5, 35.4, 46.2, 31.1, 21.8, 48.6, 61.6, 42.8)),
    (6, 'Res2Net-50'): ('faster_rcnn_r2n50_c4.py', (14.0, 38.3, 51.1, 33.7, 23.2, 51.1, 65.3, 45.0)),
}
KEYS = {'recipe', 'baseline', 'target', 'status', 'note', 'measured', 'cost'}


def test_every_config_has_an_entry() -> None:
    assert sorted(CONFIGS) == list_configs()


@pytest.mark.parametrize('name', CONFIGS)
def test_entry_names_recipe_status_sources_and_seeds(name: str) -> None:
    entry = CONFIGS[name]
    assert {'recipe', 'status', 'cost'} <= entry.keys() <= KEYS
    assert entry['recipe'] in META['recipes']
    assert entry['status'] in ('steps', 'small', 'full')
    assert (entry['status'] == 'steps') == ('measured' not in entry)
    assert config_table.group_of(name, entry)
    if target := entry.get('target'):
        assert target['source'] in META['sources']
        assert target.keys() == {'source', 'metrics', *(('tables', 'row') if target['source'] == 'paper' else ())}
        assert target['metrics']
        assert all(isinstance(value, float) for value in target['metrics'].values())
    for measured in entry.get('measured', []):
        assert measured.keys() == {'command', 'data', 'schedule', 'machine', 'runs'}
        for run in measured['runs']:
            assert isinstance(run['seed'], int)
            assert all(isinstance(value, float) for key, value in run.items() if key != 'seed')


def test_every_row_of_the_papers_tables_has_a_config_with_its_values() -> None:
    found: dict[int, dict[str, tuple[float, ...]]] = {}
    for entry in CONFIGS.values():
        target = entry.get('target', {})
        if target.get('source') == 'paper':
            found.setdefault(target['tables'][0], {})[target['row']] = tuple(target['metrics'].values())
    assert found == PAPER
    for (table, row), (name, values) in REPEATED.items():
        target = CONFIGS[name]['target']
        assert table in target['tables'], row
        assert set(values) <= set(target['metrics'].values()), row
    tables = {table for entry in CONFIGS.values() for table in entry.get('target', {}).get('tables', [])}
    assert tables == {*PAPER, *(table for table, _ in REPEATED)} == set(range(1, 10))


def test_baselines_have_the_same_recipe_and_none_themselves() -> None:
    for name, baseline in PAIRS:
        assert CONFIGS[name]['recipe'] == CONFIGS[baseline]['recipe'], name
        assert 'baseline' not in CONFIGS[baseline], name
    res2nets = {name for name in CONFIGS if 'r2n' in name or 'res2ne' in name}
    assert res2nets - {name for name, _ in PAIRS} == {'imagenet/res2net50_26w_4s_299.py'}


@pytest.mark.parametrize('name', ['faster_rcnn_r2n50_c4.py', 'imagenet/inception_v3.py', 'demo/mask_rcnn_r50.py'])
def test_costs_are_those_of_the_model(name: str) -> None:
    assert CONFIGS[name]['cost'] == config_table.cost_of(name)


@pytest.mark.slow
def test_all_costs_are_those_of_the_models() -> None:
    assert config_table.main(['--check', '--costs']) == 0


def test_pages_are_those_of_the_metafile() -> None:
    assert config_table.main(['--check']) == 0


def measure(seeds: int, value: float) -> dict[str, Any]:
    runs = [{'seed': seed, 'box AP': value + seed / 1000} for seed in range(seeds)]
    return {'command': 'run', 'data': 'shapes', 'schedule': '1 step', 'machine': 'm', 'runs': runs}


@pytest.mark.parametrize(('ours', 'theirs', 'printed'), [(3, 3, True), (3, 1, False), (1, 3, False), (1, 1, False)])
def test_a_pair_is_printed_with_three_seeds_a_side_alone(ours: int, theirs: int, printed: bool) -> None:
    meta = copy.deepcopy(META)
    meta['configs']['demo/faster_rcnn_r2n50.py']['measured'] = [measure(ours, 0.123)]
    meta['configs']['demo/faster_rcnn_r50.py']['measured'] = [measure(theirs, 0.456)]
    page = config_table.results_page(meta)
    assert ('0.456' in page) == printed
    assert '0.123' in page
    assert ('0.123 to 0.125 (3 runs)' in page) == (ours == 3)


def estimate(value: float, half: float) -> dict[str, float]:
    return {'value': value, 'low': value - half, 'high': value + half, 'above': 0.5}


def test_a_report_of_three_sides_says_of_each_whether_it_differs_and_what_it_takes_to_tell(tmp_path: Path) -> None:
    metric = {'name': 'top-1', 'group': '', 'sides': [estimate(value, 1) for value in (80, 83, 80.5)]}
    metric['differences'] = [estimate(3, 1), estimate(0.5, 1)]
    report = {'task': 'classification', 'samples': 2000, 'command': 'mmres2net compare ...', 'metrics': [metric]}
    report['sides'] = [{'name': name, 'runs': [{'config_file': f'{name}.py'}] * 3} for name in ('s1', 's4', 's6')]
    (tmp_path / 'compare_x.json').write_text(json.dumps(report | {'images': {'names': ['a'] * 100}}))
    page = config_table.results_page(META, tmp_path)
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in page.splitlines()]
    assert ['top-1, s4', '80.0', '83.0', '+3.0', '2.0 to 4.0', '0.500'] in cells
    assert ['top-1, s6', '80.0', '80.5', '+0.5', '-0.5 to 1.5', '0.500'] in cells
    assert 's4: +3.0 top-1, from 2.0 to 4.0; a difference is shown.' in page
    assert 'about 4 times as many images and seeds' in page


OURS = Res2Net | Res2NetDLA | Res2LayerHead


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_with_as_many_parameters_as_the_metafile_says(name: str) -> None:
    cfg = single_process_norms(without_weights(load_config(name))[0])[0]
    # mmpretrain's backbones read their drop rates from a tensor, which needs numbers in it.
    with torch.device('cpu' if 'mmpretrain.' in str(cfg.model.backbone.type) else 'meta'):
        model = build_model(cfg)
    assert round(count_parameters(model) / 1e6, 2) == CONFIGS[name]['cost']['params']
    backbone = getattr(model.backbone, 'backbone', model.backbone)
    if 'baseline' in CONFIGS[name]:
        assert isinstance(backbone, OURS)
        assert isinstance(getattr(getattr(model, 'roi_head', None), 'shared_head', backbone), OURS)


@pytest.mark.parametrize('name', CONFIGS)
def test_is_short_and_starts_from_the_weights_of_its_network(name: str) -> None:
    assert len((config_dir() / name).read_text().splitlines()) <= 40
    cfg = load_config(name)
    backbones = take_backbones(cfg.to_dict())
    for node in backbones:
        checkpoint = next((found.checkpoint for found in pretrained_nodes(node)), None)
        assert bool(checkpoint) == name.startswith(('faster', 'mask', 'deeplab', 'dss'))
        if checkpoint:
            assert checkpoint == node.get('arch', f'torchvision://resnet{node.get("depth")}')
            pixels = cfg.model.data_preprocessor
            assert (pixels.mean, pixels.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
            assert pixels.bgr_to_rgb

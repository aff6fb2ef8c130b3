"""The table of configs says what the configs say, and its multiply-adds are those that others count."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmres2net.complexity import complexity_of, image_size
from mmres2net.data.layout import walk
from mmres2net.engine.config import load_config
from mmres2net.paths import list_configs
from mmres2net.zoo import fields_of, main, row_of
from tests.reference.complexity import count_macs, count_parameters

DOCS = Path(__file__).resolve().parents[1] / 'docs' / 'configs.md'
SAMPLE = [
    'deeplabv3plus_r2n50.py',
    'demo/mask_rcnn_r50.py',
    'faster_rcnn_r2n50_c4.py',
    'faster_rcnn_r50.py',
    'imagenet/res2net50_26w_4s_299.py',
    'imagenet/resnet50.py',
    'mask_rcnn_r2n50_paper.py',
]


def rows() -> dict[str, str]:
    """The rows of the committed table by config."""
    found = [line for line in DOCS.read_text().splitlines() if line.startswith('| [')]
    return {line.split('](../configs/')[1].split(')')[0]: line for line in found}


def test_every_config_has_a_row_with_its_own_words() -> None:
    assert sorted(rows()) == list_configs()
    for name, row in rows().items():
        fields = fields_of((DOCS.parents[1] / 'configs' / name).read_text())
        assert f'| {fields["Target"].rstrip(".")} | {fields["Status"].rstrip(".")} |' in row


@pytest.mark.parametrize('name', SAMPLE)
def test_row_is_what_the_model_costs(name: str) -> None:
    assert rows()[name] == row_of(name)


@pytest.mark.slow
def test_whole_table() -> None:
    assert main([str(DOCS), '--check']) == 0


def test_check_finds_a_table_that_is_out_of_date(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr('mmres2net.zoo.list_configs', lambda: ['faster_rcnn_r50.py'])
    file = tmp_path / 'docs' / 'configs.md'
    assert main([str(file), '--check']) == 1
    assert 'is not what the configs say: run tools/config_table.py' in capsys.readouterr().err
    assert main([str(file)]) == 0
    assert main([str(file), '--check']) == 0
    file.write_text(file.read_text().replace('37.4', '38.4'))
    assert main([str(file), '--check']) == 1


def test_fields_span_lines_and_end_at_the_next() -> None:
    text = '"""Title\nin two lines.\n\nFamily: fair (a\nb).\nTarget: x: 1.\n\nFree text.\n"""\n'
    assert fields_of(text) == {'title': 'Title in two lines.', 'Family': 'fair (a b).', 'Target': 'x: 1.'}


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('faster_rcnn_r50.py', (800, 1344)),
        ('faster_rcnn_r50_c4.py', (608, 1008)),
        ('deeplabv3plus_r50.py', (513, 513)),
        ('demo/mask_rcnn_r50.py', (160, 160)),
        ('imagenet/resnet50.py', (224, 224)),
        ('imagenet/res2net50_26w_4s_299.py', (299, 299)),
    ],
)
def test_image_size_is_what_the_network_sees(name: str, size: tuple[int, int]) -> None:
    assert image_size(load_config(name)) == size


@pytest.mark.parametrize(('name', 'params', 'gflops'), [('r101', 60.52, 283.14), ('r2n101_v1b', 61.18, 293.68)])
def test_published_figures(name: str, params: float, gflops: float) -> None:
    """The authors' detection code publishes these for 1280x800; its counter leaves out what is frozen (stem, first
    stage) of the parameters, and has norms, activations and pools among the operations: a little more than ours."""
    cfg = load_config(f'faster_rcnn_{name}.py')
    cost = complexity_of(cfg, (800, 1280))
    backbone = MODELS.build(cfg.model.backbone)
    frozen = sum(p.numel() for p in backbone.parameters() if not p.requires_grad)
    assert round((cost.parameters - frozen) / 1e6, 2) == params
    assert 0.995 < cost.macs / 1e9 / gflops < 1


def test_parts_add_up_to_an_independent_count() -> None:
    cfg = load_config('faster_rcnn_r2n50_c4.py')
    cost = complexity_of(cfg, (96, 128))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    head = model.roi_head
    backbone = count_macs(model.backbone, (1, 3, 96, 128))
    rpn = 6 * 8 * (1024 * 512 * 9 + 512 * 12 * 5)  # 12 anchors a place: a score and four offsets each
    regions = 300 * (count_macs(head.shared_head, (1, 1024, 7, 7)) + 2048 * (81 + 320))
    assert cost.backbone_macs == backbone
    assert cost.macs == backbone + rpn + regions
    assert cost.backbone_parameters == count_parameters(model.backbone) + count_parameters(head.shared_head)
    assert cost.parameters == count_parameters(model)


def test_config_stays_as_it_is() -> None:
    cfg = load_config('mask_rcnn_r2n50.py')
    before = [dict(node) for _, node in walk(cfg.to_dict(), '')]
    complexity_of(cfg, (64, 64))
    assert [dict(node) for _, node in walk(cfg.to_dict(), '')] == before

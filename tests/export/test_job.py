"""Tiny models through every format: written, run in its runtime, compared with the host's own code."""

import copy
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmres2net.errors import UserError
from mmres2net.export import formats, job
from mmres2net.predict.runtimes import open_file
from tests.support import tiny

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
KINDS = {'onnx': 'onnxruntime', 'openvino': 'openvino', 'torchscript': 'torch', 'torch-export': 'torch'}
# The whole models as OpenVINO files are made by tests/predict too; the others take 20 seconds each.
MARKED = [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ('openvino', 'torch-export'))) for kind in KINDS]
MODELS = {
    'mask': tiny.detector(),
    'agnostic': tiny.detector(agnostic=True),
    'c4': tiny.c4_detector(),
    'segmentor': tiny.segmentor(),
}


@pytest.fixture(scope='module')
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    folder = tmp_path_factory.mktemp('models')
    return {name: tiny.write_model(folder, name, copy.deepcopy(config)) for name, config in MODELS.items()}


def export(model: tuple[str, str], folder: Path, kind: str, *flags: str) -> tuple[int, Path]:
    pytest.importorskip(KINDS[kind])
    out = folder / f'out{formats.WRITERS[kind].suffix}'
    # In torch.export's programs no map may have a single pixel, and the coarsest one has stride 64.
    size = '128x128' if kind == 'torch-export' else '80x96'
    return job.main([*model, '--to', kind, '--out', str(out), '--size', size, *flags]), out


@pytest.mark.parametrize('kind', MARKED)
@pytest.mark.parametrize('name', ['mask', 'segmentor'])
def test_whole_models_in_every_format(
    models: dict, name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    status, out = export(models[name], tmp_path, kind)
    said = capsys.readouterr().out
    assert status == 0, said
    assert said.count('NOT EQUAL') == 0
    sizes = set(re.findall(r'^  (\d+x\d+): ', said, re.MULTILINE))
    assert len(sizes) == 2, 'another size than that of the example'
    assert {path.suffix for path in tmp_path.iterdir()} == {out.suffix, *(['.bin'] if kind == 'openvino' else [])}
    facts = open_file(out).facts
    assert facts.classes == tiny.CLASSES
    assert facts.scale == ((96, 80) if name == 'mask' else (96, 96))
    assert facts.batch == (name == 'segmentor')
    if name == 'mask':
        counts = [int(line.rpartition(' ')[2]) for line in said.splitlines() if 'without a partner' in line]
        assert min(counts) >= 5, 'there was something to compare'
        assert (facts.score_threshold, facts.outputs) == (0.05, ('boxes', 'scores', 'labels', 'masks'))


@pytest.mark.parametrize('name', ['agnostic', 'c4'])
def test_other_detectors(models: dict, name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert export(models[name], tmp_path, 'onnx')[0] == 0, capsys.readouterr().out


@pytest.mark.parametrize('kind', MARKED)
def test_backbone_alone(models: dict, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    status, out = export(models['mask'], tmp_path, kind, '--part', 'backbone')
    assert status == 0, capsys.readouterr().out
    session = open_file(out)
    assert session.facts.strides == (4, 8, 16, 32)
    shapes = [result.shape for result in session.run(np.zeros((3, 3, 65, 100), np.uint8))]
    assert shapes == [(3, 256, 17, 25), (3, 512, 9, 13), (3, 1024, 5, 7), (3, 2048, 3, 4)]


def test_fixed_size(models: dict, tmp_path: Path) -> None:
    import onnx

    status, out = export(models['segmentor'], tmp_path, 'onnx', '--fixed')
    assert status == 0
    assert open_file(out).facts.size == (80, 96)
    dims = onnx.load(out).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value or dim.dim_param for dim in dims] == ['batch', 3, 80, 96]


def test_the_graph_is_lean(models: dict, tmp_path: Path) -> None:
    """No norm is left, and no Split where splits are unaligned; only aligned ones (the last two stages) have one."""
    import onnx

    out = export(models['mask'], tmp_path, 'onnx', '--part', 'backbone')[1]
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert not {'BatchNormalization', 'Identity', 'Dropout'} & set(kinds)
    assert kinds.count('Split') == 2


def test_no_images_of_the_config_are_no_hindrance(models: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    export(models['segmentor'], tmp_path, 'torchscript')
    assert 'drawn shapes' in capsys.readouterr().out


def test_a_file_that_does_something_else_does_not_get_its_name(
    models: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def write_wrong(graph: formats.Graph, path: Path) -> None:
        with torch.no_grad():
            graph.module.head.conv_seg.weight[0] *= 1.2
        formats._write_onnx(graph, path)

    monkeypatch.setitem(formats.WRITERS, 'onnx', formats.Writer('.onnx', write_wrong))
    status, out = export(models['segmentor'], tmp_path, 'onnx')
    said = capsys.readouterr().out
    assert status == 1
    assert 'do not trust it' in said
    assert 'NOT EQUAL' in said
    assert [path.name for path in tmp_path.iterdir()] == [f'out{job.UNVERIFIED}.onnx']
    assert not out.exists()


def test_what_cannot_be_whole_is_the_backbone_with_the_reason(
    models: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    option = ['--cfg-options', 'model.test_cfg.rcnn.nms.type=soft_nms']
    assert export(models['mask'], tmp_path, 'torchscript', *option)[0] == 0
    assert 'the backbone alone is exported: test_cfg.rcnn.nms' in capsys.readouterr().out
    with pytest.raises(UserError, match='cannot be exported whole: test_cfg'):
        export(models['mask'], tmp_path, 'torchscript', '--part', 'whole', *option)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ([], 'name a checkpoint, or give --random'),
        (['x.pth', '--random'], 'name a checkpoint, or give --random'),
        (['--random', '--fixed'], '--fixed needs --size HxW'),
        (['--random', '--size', '80'], '--size 80: give height and width'),
        (['--random', '--size', '8x80'], '--size 8x80'),
        (['--random', '--tolerance', '0'], '--tolerance 0.0: choose more than 0'),
        (['--random', '--out', 'x.pt'], 'ends in .onnx'),
        (['--random', '--out', 'absent/x.onnx'], 'no folder absent'),
        (['absent.pth'], 'no checkpoint at absent.pth'),
        (['--random', '--images', 'absent.jpg', '--size', '80x96'], 'no image absent.jpg'),
    ],
)
def test_mistakes(models: dict, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        job.main([models['segmentor'][0], *flags, '--to', 'onnx'])


def test_a_checkpoint_of_another_model_is_refused(models: dict) -> None:
    with pytest.raises(UserError, match='does not fit the config'):
        job.main([models['segmentor'][0], models['mask'][1], '--to', 'onnx'])


def test_a_missing_package_names_the_extra(models: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(UserError, match='onnxruntime'):
        export(models['segmentor'], tmp_path, 'onnx')
    assert not list(tmp_path.iterdir())


def test_deformable_convolutions_are_refused(models: dict, tmp_path: Path) -> None:
    pytest.importorskip('mmcv.ops')
    options = ['model.backbone.dcn.type=DCNv2', 'model.backbone.dcn.deform_groups=1']
    options.append('model.backbone.stage_with_dcn=(False,False,True,True)')
    with pytest.raises(UserError, match='neither ONNX nor OpenVINO has'):
        job.main([models['mask'][0], '--random', '--to', 'onnx', '--cfg-options', *options])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['onnx', 'openvino'])
@pytest.mark.parametrize('config', ['deeplabv3plus_r2n50.py', 'demo/deeplabv3plus_r2n50.py'])
def test_shipped_segmentors(config: str, kind: str, tmp_path: Path) -> None:
    out = tmp_path / f'out{formats.WRITERS[kind].suffix}'
    assert job.main([config, '--random', '--to', kind, '--out', str(out), '--size', '161x193']) == 0

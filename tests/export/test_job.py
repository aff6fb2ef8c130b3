"""Tiny models through every format: written, run in its runtime, compared with the model in its own library."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmres2net.engine.source import ModelSource, read_source
from mmres2net.errors import UserError
from mmres2net.export import formats, job
from mmres2net.export.graphs import Graph, make_graph
from mmres2net.export.preprocess import Padding
from mmres2net.export.verify import Comparison, Verifier, fault_of, images_for, make_copies
from mmres2net.paths import list_configs
from mmres2net.predict.runtimes import Session, open_file
from tests.cam import models as cam_models
from tests.support import tiny
from tests.support.exported import FLAGS

WHOLE = [f'{name}.{suffix}' for name in ('detector', 'segmentor', 'classifier') for suffix in FLAGS]
SLOW = ('detector.pt2', 'segmentor.pt2', 'classifier.xml')  # tests/predict has the other files of these formats
MODELS = ('detector', 'agnostic', 'c4', 'segmentor', 'classifier')


def marked(value: str, slow: bool) -> object:
    return pytest.param(value, marks=[pytest.mark.slow] * slow)


def export(model: tuple[str, str], folder: Path, suffix: str, *flags: str) -> tuple[int, Path]:
    return job.main([*model, *FLAGS[suffix], '--out', str(folder / f'out.{suffix}'), *flags]), folder / f'out.{suffix}'


@pytest.mark.parametrize('name', [marked(name, name in SLOW) for name in WHOLE])
def test_whole_models_in_every_format(exports: dict, name: str) -> None:
    metadata = open_file(exports[name]).metadata
    tasks = {'detector': 'detection', 'segmentor': 'segmentation', 'classifier': 'classification'}
    assert metadata.task == tasks[name.partition('.')[0]]
    assert metadata.classes == (cam_models.CLASSES if metadata.task == 'classification' else tiny.CLASSES)
    if metadata.task == 'detection':
        assert metadata.transforms == ({'type': 'Resize', 'scale': (96, 80), 'keep_ratio': True},)
        assert (metadata.score_threshold, metadata.outputs) == (0.05, ('boxes', 'scores', 'labels', 'masks'))


@pytest.mark.parametrize('suffix', [marked(suffix, suffix in ('xml', 'pt2')) for suffix in FLAGS])
def test_backbone_alone(tiny_models: dict, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip({'onnx': 'onnxruntime', 'xml': 'openvino'}.get(suffix, 'torch'))
    status, out = export(tiny_models['detector'], tmp_path, suffix, '--part', 'backbone')
    assert status == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {out.suffix, *(['.bin'] if suffix == 'xml' else [])}
    session = open_file(out)
    assert session.metadata.task == 'backbone'
    shapes = [result.shape for result in session.run(np.zeros((3, 3, 65, 100), np.uint8))]
    assert shapes == [(3, 256, 17, 25), (3, 512, 9, 13), (3, 1024, 5, 7), (3, 2048, 3, 4)]


# In this process, without a file: what a runtime would compute, and how it can be wrong.


def session_of(graph: Graph) -> Session:
    def run(image: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [value.numpy() for value in graph.module(torch.from_numpy(image))]

    return Session(graph.metadata, run)


@pytest.fixture(scope='module')
def sources(tiny_models: dict) -> dict[str, ModelSource]:
    return {name: read_source(*tiny_models[name]) for name in (*MODELS, 'saliency')}


def compare(
    graph: Graph, source: ModelSource, folder: Path, session: Session | None = None, size: Any = None
) -> list[Comparison]:
    """Return the comparisons of a model with a graph, on drawn scenes."""
    paths = images_for([], folder)[0]
    copies = make_copies(paths, graph.metadata, size, folder)
    verifier = Verifier(source, graph, session or session_of(graph), 1e-3)
    return list(verifier.run(paths, copies))


def swap_channels(graph: Graph) -> None:
    graph.module.preprocess.swap = not graph.module.preprocess.swap


CHANGES = {
    'channels': swap_channels,
    'padding': lambda graph: setattr(graph.module.preprocess, 'padding', None),
    'nms': lambda graph: setattr(graph.module.boxes, 'threshold', 0.3),
}
OUTPUTS = {
    'boxes': lambda out: [out[0] + 0.5, *out[1:]], 'scores': lambda out: [out[0], out[1] * 0.99, *out[2:]],
    'labels': lambda out: [*out[:2], (out[2] + 1) % 3, *out[3:]], 'masks': lambda out: [*out[:3], out[3][:, ::-1]],
    'one lost': lambda out: [value[1:] for value in out],
    'twice': lambda out: [np.concatenate([value, value]) for value in out],
    'logits': lambda out: [out[0] * 1.01, out[1]],
    'classes': lambda out: [out[0], np.where(np.arange(out[1].shape[2]) < 5, 0, out[1])],
    'probabilities': lambda out: [np.roll(out[0], 1, 1)],
}  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'part'), [*((name, 'whole') for name in MODELS), ('c4', 'backbone'), ('saliency', 'backbone')]
)
def test_right_graphs_are_verified(sources: dict, name: str, part: str, tmp_path: Path) -> None:
    graph = make_graph(copy.deepcopy(sources[name]), part)
    rows = compare(graph, sources[name], tmp_path)
    assert fault_of(rows, graph.metadata.task) == '', rows


@pytest.mark.parametrize(
    ('name', 'change'),
    [('detector', change) for change in ('channels', 'padding', 'nms', *list(OUTPUTS)[:6])]
    + [('segmentor', change) for change in ('channels', 'padding', 'logits', 'classes')]
    + [('classifier', change) for change in ('channels', 'probabilities')]
    + [('saliency', 'channels')],
)
def test_wrong_graphs_are_not_verified(sources: dict, name: str, change: str, tmp_path: Path) -> None:
    graph = make_graph(copy.deepcopy(sources[name]), 'backbone' if name == 'saliency' else 'whole')
    right = session_of(graph)
    CHANGES.get(change, lambda graph: None)(graph)
    session = Session(graph.metadata, lambda image: OUTPUTS.get(change, list)(right.run(image)))
    rows = compare(graph, sources[name], tmp_path, session=session)
    assert fault_of(rows, '')
    if change == 'channels':
        assert not rows[0].passed, 'already seen at the input'


def test_ties_are_recognized(tiny_models: dict, tmp_path: Path) -> None:
    """Changes of the features by as little as rounding let other regions win; seed 4 meets such ties."""
    options = {'model.test_cfg.rpn.nms_pre': 1000, 'model.test_cfg.rpn.max_per_img': 100}
    source = read_source(*tiny_models['detector'], options={**options, 'model.test_cfg.rcnn.max_per_img': 60})
    graph = make_graph(copy.deepcopy(source))

    def noisy(module: torch.nn.Module, args: object, output: tuple) -> tuple:
        return tuple(x + 1e-5 * x.std() * torch.randn_like(x) for x in output)

    graph.module.neck.register_forward_hook(noisy)
    rows = []
    for seed in (0, 4):
        torch.manual_seed(seed)
        rows += compare(graph, source, tmp_path)
    assert fault_of(rows, 'detection') == '', rows
    tied = [row for row in rows if 'detections' in row.part and not row.remark.endswith(' 0 by rounding')]
    assert tied, 'there were ties'


@pytest.mark.parametrize('size', [(98, 113), (130, 97), (40, 145)])
def test_images_larger_than_the_training_crop(sources: dict, size: tuple[int, int], tmp_path: Path) -> None:
    """Corners are aligned, so both pad to the next 16 k + 1 pixels."""
    source = sources['segmentor']
    graph = make_graph(source)
    rows = compare(graph, source, tmp_path, size=size)
    assert fault_of(rows, '') == '', rows
    graph.module.preprocess.padding = Padding(least=(97, 97))  # to the crop only
    assert fault_of(compare(graph, source, tmp_path, size=size), '')


def test_other_tests_than_supported_have_only_a_backbone(tiny_models: dict) -> None:
    soft, resized = (
        {'model.test_cfg.rcnn.nms.type': 'soft_nms'},
        {'test_dataloader.dataset.pipeline.1.type': 'RandomResize'},
    )
    for options in (soft, resized):
        source = read_source(*tiny_models['detector'], options=options)
        assert make_graph(source, 'backbone').metadata.task == 'backbone'
        with pytest.raises(UserError, match='--part backbone'):
            make_graph(source)
    dcn = {'dcn': dict(type='DCNv2', deform_groups=1), 'stage_with_dcn': (False, False, True, True)}
    with pytest.raises(UserError, match='dcn=None'):
        make_graph(
            read_source(tiny_models['detector'][0], None, options={f'model.backbone.{k}': v for k, v in dcn.items()})
        )


@pytest.mark.slow
@pytest.mark.parametrize('name', list_configs())
def test_what_is_exported_of_every_shipped_config(name: str) -> None:
    graph = make_graph(read_source(name, None), 'backbone' if 'dss' in name else 'whole')
    tasks = {'deeplab': 'segmentation', 'rcnn': 'detection', 'dss': 'backbone', '/': 'classification'}
    assert graph.metadata.task == next(task for part, task in tasks.items() if part in name)
    size = 64 if 'cifar' in name else 128
    with torch.no_grad():
        outputs = graph.module(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    assert len(outputs) == len(graph.metadata.outputs)


def test_a_wrong_file_does_not_get_its_name(tiny_models: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_wrong(graph: Graph, example: torch.Tensor, path: Path) -> None:
        graph = copy.deepcopy(graph)
        swap_channels(graph)
        formats._write_torchscript(graph, example, path)

    monkeypatch.setitem(formats.WRITERS, 'torchscript', ('.pt', write_wrong))
    (tmp_path / 'out.pt').write_bytes(b'an older file')
    status, out = export(tiny_models['segmentor'], tmp_path, 'pt', '--overwrite')
    assert status == 1
    assert [path.name for path in tmp_path.iterdir()] == [f'out{job.UNVERIFIED}.pt']
    assert not out.exists()


@pytest.mark.parametrize(('suffix', 'name'), [('pt', 'out.pt'), ('xml', 'out.bin')])
def test_existing_files_are_kept(tiny_models: dict, suffix: str, name: str, tmp_path: Path) -> None:
    old = tmp_path / name
    old.write_bytes(b'precious')
    with pytest.raises(UserError, match='--overwrite'):
        export(tiny_models['segmentor'], tmp_path, suffix)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'precious']


MISTAKES = {
    '': '--random', 'x.pth --random': '--random', '--random --size 99999x99999': '99999',
    '--random --tolerance nan': '--tolerance', '--random --out x.pt': r'\.onnx',
    '--random --out /proc/x.onnx': '--out', 'absent.pth': r'absent\.pth',
    '--random --images absent.jpg --size 80x96': r'absent\.jpg', 'x.pth --max-drop 0.01': '--int8',
    'x.pth --int8 --max-drop -0.1': '-0.1', 'x.pth --int8 --max-drop nan': 'nan', '--random --int8': '--random',
    'x.pth --int8 --part backbone': '--part',
}  # fmt: skip


@pytest.mark.parametrize('flags', MISTAKES)
def test_mistakes(tiny_models: dict, flags: str) -> None:
    with pytest.raises(UserError, match=MISTAKES[flags]):
        job.main([tiny_models['segmentor'][0], *flags.split(), '--to', 'onnx'])


def test_a_missing_package_names_the_extra(tiny_models: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(UserError, match='onnxruntime'):
        export(tiny_models['segmentor'], tmp_path, 'onnx')
    assert not list(tmp_path.iterdir())

"""8-bit files: calibrated on training images, measured by the metric of the config, refused if they lose much."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmres2net.engine.source import read_source
from mmres2net.errors import UserError
from mmres2net.evaluation.per_image import evaluated, record_of
from mmres2net.export import int8, job
from mmres2net.export.graphs import make_graph
from mmres2net.flags import parse
from mmres2net.predict.model import ExportedModel
from mmres2net.predict.runtimes import Session, open_file
from tests.cam import models
from tests.support import tiny

CLASSES = ('blue', 'red')


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Config and checkpoint of a classifier that tells reddish noise from bluish noise, mostly."""
    root, rng, config = tmp_path_factory.mktemp('colors'), np.random.default_rng(0), models.classifier(classes=CLASSES)
    for part in ('train', 'test'):
        for name, color in zip(CLASSES, ((0, 0, 9), (9, 0, 0)), strict=True):
            (root / part / name).mkdir(parents=True)
            for index in range(20):
                pixels = (rng.integers(0, 200, (64, 64, 3)) + color + rng.normal(0, 9, 3).clip(-20)).clip(0)
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f'{index:02}.png')
        data = dict(type='CustomDataset', data_root=str(root), data_prefix=part, metainfo=dict(classes=CLASSES))
        loader = dict(batch_size=3, num_workers=0, dataset=dict(data, pipeline=models.STEPS))
        config[f'{part}_dataloader'] = loader | dict(sampler=dict(type='DefaultSampler', shuffle=False))
    path, checkpoint = tiny.write_model(root, 'colors', config | dict(test_evaluator=dict(type='Accuracy', topk=(1,))))
    source = read_source(path, checkpoint)
    images, model = int8.read_images(source, parse('export', [path, '--to', 'onnx'])), source.model
    with torch.no_grad():
        pixels = torch.cat([torch.from_numpy(images.pixels(sample)) for sample in images.training])
        found = model.extract_feat(make_graph(source).module.preprocess(pixels))[-1]
        direction = found[20:].mean(0) - found[:20].mean(0)
        model.head.fc.weight.copy_(torch.stack([-direction, direction]) / direction.norm())
        model.head.fc.bias.copy_(-model.head.fc.weight @ found.mean(0))
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return path, checkpoint


@pytest.mark.parametrize('suffix', ['onnx', 'xml'])
def test_a_classifier(trained: tuple[str, str], suffix: str, tmp_path: Path) -> None:
    kind = {'onnx': 'onnx', 'xml': 'openvino'}[suffix]
    for package in int8.PACKAGES[kind]:
        pytest.importorskip(package)
    files = [tmp_path / f'{name}.{suffix}' for name in ('fp32', 'int8')]
    assert job.main([*trained, '--to', kind, '--out', str(files[0])]) == 0
    assert job.main([*trained, '--to', kind, '--out', str(files[1]), '--int8', '--max-drop', '0.2']) == 0
    sizes = [file.with_suffix('.bin' if suffix == 'xml' else '.onnx').stat().st_size for file in files]
    assert sizes[1] < 0.35 * sizes[0]
    sessions = [open_file(file) for file in files]
    facts = sessions[1].metadata.int8
    assert (sessions[0].metadata.int8, facts['test_images'], facts['calibration'][:18]) == (
        {},
        40,
        '40 training images',
    )
    images = int8.read_images(read_source(*trained), parse('export', [*trained, '--to', kind]))
    kept = [int8.evaluate(ExportedModel(session), images) for session in sessions]
    fp32, quantized, drop, low, high = facts['drop']['top-1 accuracy']
    assert (fp32, quantized) == tuple((one['top'][:, 0] == one['truth']).mean() for one in kept)
    assert (fp32 > 0.7, low <= drop <= high, drop) == (True, True, pytest.approx(fp32 - quantized, abs=1e-6))
    assert 1e-5 < np.abs(kept[0]['scores'] - kept[1]['scores']).max() < 0.2


def test_a_file_that_loses_too_much_is_refused(trained, tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip('onnxruntime')
    usual = int8._quantized_onnx

    def damaged(path: Path, images: int8.Images) -> Any:
        model = usual(path, images)
        bias = next(one for one in model.graph.initializer if one.name.endswith('fc.bias_quantized'))
        bias.raw_data = b'\xff' * 4 + b'\x7f' * 4  # the second class always wins
        return model

    monkeypatch.setattr(int8, '_quantized_onnx', damaged)
    (tmp_path / 'out.onnx').write_bytes(b'an older file')
    flags = ['--to', 'onnx', '--out', str(tmp_path / 'out.onnx'), '--overwrite', '--int8']
    assert job.main([*trained, *flags]) == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'an older file']
    assert 'top-1 accuracy by 0.' in capsys.readouterr().out.splitlines()[-1]


def test_data_that_are_missing_or_too_few_are_refused(trained: tuple[str, str], tiny_models: dict) -> None:
    pytest.importorskip('onnxruntime')
    flags = ['--to', 'onnx', '--int8', '--cfg-options']
    for option in ('train_dataloader.dataset.data_root=absent', 'train_dataloader.dataset.indices=1'):
        with pytest.raises(UserError, match=r'absent|2 or more'):
            job.main([*trained, *flags, option])
    with pytest.raises(UserError, match='torchscript'):
        job.main([*trained, '--int8', '--to', 'torchscript'])
    with pytest.raises(UserError, match='no train_dataloader'):
        job.main([*tiny_models['segmentor'], *flags[:-1]])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['faster_rcnn', 'deeplabv3plus'])
def test_graphs_are_evaluated_as_their_models(trained_demo: Path, shapes: Path, name: str) -> None:
    own = (str(trained_demo / 'faster_rcnn_r2n50.py'), str(trained_demo / 'epoch_1.pth'))
    source = read_source(*(own if name == 'faster_rcnn' else (f'demo/{name}_r2n50.py', None)), data=str(shapes))
    images = int8.read_images(source, parse('export', [own[0], '--to', 'onnx', '--data', str(shapes)]))
    graph, records = make_graph(source), []
    with torch.no_grad():
        session = Session(graph.metadata, lambda x: [one.numpy() for one in graph.module(torch.from_numpy(x))])
        got = int8.evaluate(ExportedModel(session), images)
        for batch in images.testing:
            records += [record_of(one, len(got['classes'])) for one in source.model.test_step(batch)]
    expected = evaluated(records, got['classes'].tolist(), [])
    assert np.array_equal(got['truth_hash'], expected['truth_hash'])
    np.testing.assert_allclose(got['scores'], expected['scores'], atol=1e-4)

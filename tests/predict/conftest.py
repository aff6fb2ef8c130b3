"""Exported files of tiny models, made once."""

from pathlib import Path

import pytest

from tests.support import tiny

CONFIGS = {'detector': tiny.detector, 'segmentor': tiny.segmentor}


@pytest.fixture(scope='session')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A detector and a segmentor as ONNX and OpenVINO files, by names such as 'detector.onnx'."""
    for package in ('mmdet', 'mmseg', 'onnx', 'onnxruntime', 'openvino'):
        pytest.importorskip(package)
    from mmres2net.export import job

    folder = tmp_path_factory.mktemp('exported')
    for name, config in CONFIGS.items():
        model = tiny.write_model(folder, name, config())
        for kind, suffix in (('onnx', 'onnx'), ('openvino', 'xml')):
            out = str(folder / f'{name}.{suffix}')
            assert job.main([*model, '--to', kind, '--out', out, '--size', '80x96']) == 0
    return {path.name: path for path in folder.iterdir()}

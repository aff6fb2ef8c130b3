"""Exported files of tiny models, made once."""

from pathlib import Path

import pytest

from tests.cam import models
from tests.support import tiny

CONFIGS = {'detector': tiny.detector, 'segmentor': tiny.segmentor, 'classifier': models.classifier}


@pytest.fixture(scope='session')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exported models by names such as 'detector.onnx'; the classifier and the segmentor also as programs."""
    for package in ('mmdet', 'mmseg', 'mmpretrain', 'onnx', 'onnxruntime', 'openvino'):
        pytest.importorskip(package)
    from mmres2net.export import job

    folder = tmp_path_factory.mktemp('exported')
    kinds = {'onnx': ('onnx', CONFIGS), 'openvino': ('xml', ('detector', 'segmentor'))}
    kinds |= {'torchscript': ('pt', ('segmentor',)), 'torch-export': ('pt2', ('classifier',))}
    for name, config in CONFIGS.items():
        model = tiny.write_model(folder, name, config())
        for kind, (suffix, names) in kinds.items():
            if name in names:
                assert job.main([*model, '--to', kind, '--out', str(folder / f'{name}.{suffix}')]) == 0
    return {path.name: path for path in folder.iterdir()}

"""Tiny models and exports of them, each written when it is first asked for; for reading only."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import torch

from mmres2net.export import job
from tests.cam import models
from tests.support import tiny

OTHER_CLASSES = ('drake', 'tench', 'stork', 'ptarmigan')
RESNET = dict(type='mmpretrain.ResNet', depth=18, out_indices=(3,))
CONFIGS: dict[str, Callable[[], dict]] = {
    'detector': tiny.detector, 'agnostic': lambda: tiny.detector(agnostic=True), 'c4': tiny.c4_detector,
    'segmentor': tiny.segmentor, 'saliency': models.saliency, 'classifier': models.classifier,
    'resnet': lambda: models.classifier(RESNET, OTHER_CLASSES, 512),
}  # fmt: skip
# Flags by suffix. OpenVINO once confused rows and columns of a level of 3 x 3 cells; the coarsest one has stride 64.
# torch.export's programs take no level of a single cell.
FLAGS = {
    'onnx': ['--to', 'onnx'], 'xml': ['--to', 'openvino', '--size', '160x160'], 'pt': ['--to', 'torchscript'],
    'pt2': ['--to', 'torch-export', '--size', '128x128'],
}  # fmt: skip


class TinyModels(dict[str, tuple[str, str]]):
    """Paths of config and checkpoint by a key of :data:`CONFIGS`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> tuple[str, str]:
        with torch.random.fork_rng():
            self[name] = tiny.write_model(self.folder, name, CONFIGS[name]())
        return self[name]


class Exports(dict[str, Path]):
    """Exported files by names such as ``detector.onnx``; their export has verified them."""

    def __init__(self, models: TinyModels, folder: Path) -> None:
        super().__init__()
        self.models, self.folder = models, folder

    def __missing__(self, name: str) -> Path:
        model, _, suffix = name.partition('.')
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = job.main([*self.models[model], *FLAGS[suffix], '--out', str(self.folder / name)])
        assert status == 0, out.getvalue()
        self[name] = self.folder / name
        return self[name]

"""Whole runs: each test begins with no visualizer made; the tiny config; one trained detector for all files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.visualization import Visualizer

from tests.engine.tiny import write_config


def forget_visualizers() -> None:
    """MMEngine keeps visualizers by name as long as the process lives: another test's would log into its own folder."""
    kinds = [Visualizer]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def _no_visualizers() -> None:
    forget_visualizers()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / 'hub'))
    yield tmp_path / 'hub' / 'checkpoints'
    torch.hub.set_dir(before)

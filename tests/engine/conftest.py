"""Whole runs of the tiny config."""

from pathlib import Path

import pytest

from tests.engine.tiny import write_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return tmp_path

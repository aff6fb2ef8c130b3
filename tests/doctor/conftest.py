"""A folder of made-up packages in front of the real ones, for this process and its children alike."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest

Distribution = Callable[..., None]
Module = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def distribution(site: Path) -> Distribution:
    """Pretend that a distribution is installed: its metadata without its files."""

    def make(name: str, version: str, owns: str = '', requires: tuple[str, ...] = ()) -> None:
        info = site / f'{name.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        lines = ['Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}']
        (info / 'METADATA').write_text('\n'.join([*lines, *(f'Requires-Dist: {line}' for line in requires)]) + '\n')
        if owns:
            (info / 'top_level.txt').write_text(owns + '\n')
        importlib.invalidate_caches()

    return make


@pytest.fixture
def module(site: Path) -> Module:
    """Put a package with this source in front of the real one of its name; it is not imported here."""

    def make(name: str, source: str = '') -> Path:
        folder = site.joinpath(*name.split('.'))
        folder.mkdir(parents=True, exist_ok=True)
        for parent in folder.relative_to(site).parents[:-1]:  # else it is a part of the real package
            (site / parent / '__init__.py').touch()
        (folder / '__init__.py').write_text(source)
        importlib.invalidate_caches()
        return folder / '__init__.py'

    return make


@pytest.fixture
def alone(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide all distributions but the made-up ones."""
    real = importlib.metadata.distributions
    monkeypatch.setattr(importlib.metadata, 'distributions', lambda **kw: real(path=[str(site)]))

    def one(name: str) -> importlib.metadata.Distribution:
        found = real(name=name, path=[str(site)])
        try:
            return next(iter(found))
        except StopIteration:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, 'distribution', one)

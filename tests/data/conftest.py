"""One small set of `shapes`: its files, its scenes as drawn, and its COCO annotations; and a server for downloads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from mmres2net.data import shapes
from mmres2net.data.shapes import ShapesSpec, draw_scene, make_shapes
from mmres2net.data.shapes_scene import Scene
from tests.support.archive_server import Server, retry_soon, serving


@pytest.fixture(scope='session')
def spec() -> ShapesSpec:
    return ShapesSpec(n_train=60, n_val=14, seed=4)


@pytest.fixture(scope='session')
def root(spec: ShapesSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('sets') / 'shapes', spec=spec)


@pytest.fixture(scope='session')
def scenes(spec: ShapesSpec) -> dict[str, Scene]:
    keys = [('train', i) for i in range(spec.n_train)] + [('val', i) for i in range(spec.n_val)]
    return {shapes.stem(split, index): draw_scene(spec, split, index) for split, index in keys}


@pytest.fixture(scope='session')
def coco(root: Path) -> dict[str, COCO]:
    return {split: COCO(root / 'annotations' / f'instances_{split}2017.json') for split in ('train', 'val')}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    retry_soon(monkeypatch)
    with serving() as running:
        yield running

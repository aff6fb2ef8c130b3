"""Settings and fixtures of every test: two threads as on the smallest machine supported, fixed seeds, one data set."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from mmres2net.data.shapes import ShapesSpec, make_shapes
from tests.support.folders import contents

if TYPE_CHECKING:
    from tests.support.exported import Exports, TinyModels

# Before any test: the threads of two processes on two cores would wait for each other most of the time.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # for the processes that tests start
torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))


def forget_visualizers() -> None:
    """MMEngine keeps visualizers by name: one of a test before would write into that test's folder, which is gone."""
    kinds = [sys.modules['mmengine.visualization'].Visualizer] if 'mmengine.visualization' in sys.modules else []
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    forget_visualizers()  # of a fixture with a wider scope
    yield
    forget_visualizers()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """A folder of downloads, empty at first."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / 'hub'))
    yield tmp_path / 'hub' / 'checkpoints'
    torch.hub.set_dir(before)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The embedded data set with 12 training and 6 validation images, for reading only; copy it to change it."""
    root = make_shapes(tmp_path_factory.mktemp('embedded') / 'shapes', spec=ShapesSpec(n_train=12, n_val=6, seed=1))
    before = contents(root)
    yield root
    assert contents(root) == before, 'a test has changed the data of all tests'


@pytest.fixture(scope='session')
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> 'TinyModels':
    """Paths of config and checkpoint of tiny models by name, see :mod:`tests.support.exported`."""
    for package in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(package)
    from tests.support.exported import TinyModels

    return TinyModels(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='session')
def exports(tiny_models: 'TinyModels', tmp_path_factory: pytest.TempPathFactory) -> 'Exports':
    """Exported files of tiny models by names such as ``detector.onnx``."""
    for package in ('onnx', 'onnxruntime', 'openvino'):
        pytest.importorskip(package)
    from tests.support.exported import Exports

    return Exports(tiny_models, tmp_path_factory.mktemp('exports'))


@pytest.fixture(scope='session')
def trained_demo(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a detector trained for one epoch, for reading only."""
    from tests.engine.demo import train_demo

    work_dir = tmp_path_factory.mktemp('demo') / 'first'
    # With this seed three steps suffice to find an object.
    assert train_demo(work_dir, shapes, '--seed', '1').status == 0
    return work_dir

"""Runs mmcv.ops on either set of operators."""

import importlib
import sys
from collections.abc import Callable
from importlib.util import module_from_spec
from types import ModuleType

import pytest

from mmres2net.mmcv_ops import EXTENSION, OperatorFinder

Use = Callable[[ModuleType], None]


@pytest.fixture(scope='session')
def provided() -> ModuleType:
    """The replacement for ``mmcv._ext``, wherever mmcv's own comes from."""
    spec = OperatorFinder().find_spec(EXTENSION)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def compiled() -> ModuleType:
    """mmcv's compiled operators; skips without them."""
    module = importlib.import_module(EXTENSION)
    if isinstance(module.__spec__.loader, OperatorFinder):
        pytest.skip('mmcv was installed without compiled operators')
    return module


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """A function that has mmcv.ops call the operators of a module."""
    importlib.import_module('mmcv.ops')

    def switch(extension: ModuleType) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
                monkeypatch.setattr(module, 'ext_module', extension)

    return switch

"""What the tests of metrics share: an evaluator built as a run of an OpenMMLab library builds it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope, init_default_scope

MODULES = ('coco', 'voc', 'iou')
Build = Callable[..., Evaluator]


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    """Build an evaluator from a config, in the scope of the library that the test's ``HOST`` names."""
    library = request.module.HOST
    before = DefaultScope.get_current_instance()
    init_default_scope(library)

    def make(cfg: dict[str, Any], classes: Any) -> Evaluator:
        evaluator = Evaluator(cfg)
        evaluator.dataset_meta = {'classes': classes}
        return evaluator

    yield make
    init_default_scope(before.scope_name if before else 'mmengine')


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the metrics log, as it grows."""
    lines: list[str] = []
    for module in MODULES:
        monkeypatch.setattr(f'mmres2net.evaluation.{module}.print_log', lambda text, logger: lines.append(text))
    return lines

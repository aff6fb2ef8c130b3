"""Res2Net backbones for OpenMMLab detection, segmentation and classification.

Importing this package loads neither torch nor an OpenMMLab library; import ``mmres2net.models`` to register the
backbones. It makes mmcv's operators importable where mmcv was installed without compiled ones, so import it first.
What ``__all__`` names is imported when it is first used; docs/api.md describes it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mmres2net.mmcv_ops import provide_operators
from mmres2net.version import __version__

if TYPE_CHECKING:
    from mmres2net.predict.model import Predictor
    from mmres2net.swap import swap_backbone
    from mmres2net.weights.create import create_model

__all__ = ['Predictor', '__version__', 'create_model', 'swap_backbone']
_PLACES = {'Predictor': 'predict.model', 'create_model': 'weights.create', 'swap_backbone': 'swap'}

provide_operators()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_PLACES[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})

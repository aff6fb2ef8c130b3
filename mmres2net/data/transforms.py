"""Steps of data pipelines that no OpenMMLab library has."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmres2net.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TrainOnDifficult(BaseTransform):
    """Train on the objects that PASCAL VOC marks as difficult, as the paper's Faster R-CNN baselines did.

    mmdet's loader of VOC annotations marks them as regions to ignore. Only the evaluation has to ignore them: the
    protocol does not concern training, and the public code with the paper's kind of detector (a single stride-16 map,
    VOC 2007) trains on them. The step follows ``LoadAnnotations``, in training pipelines alone.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with all of ``gt_ignore_flags`` (N,) false; the given dict stays as it is.

        Raises:
            KeyError: There are no such flags.
        """
        if 'gt_ignore_flags' not in results:
            raise KeyError(
                'mmres2net.TrainOnDifficult finds no gt_ignore_flags: put it after LoadAnnotations(with_bbox=True)'
            )
        return {**results, 'gt_ignore_flags': np.zeros_like(results['gt_ignore_flags'])}

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'

"""``--out``: predictions in a file that fits in memory and on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import DumpResults
from mmengine.structures import BaseDataElement
from pycocotools.mask import encode

from mmres2net.registry import METRICS

# Annotations, and per-pixel scores: those of 19 classes at 1024 x 2048 take 160 MB an image.
DROPPED = ('gt_', 'ignored_', 'seg_logits', 'i_seg_logits', 'proposals')


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """Write the predictions of all images to a pickle file: a list of dicts, one for each image.

    Annotations and per-pixel scores are left out, instance masks are COCO run lengths, and label maps have the smallest
    type that holds them.

    Args:
        out_file_path: The file; its name ends in .pkl or .pickle.
    """

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Add the predictions of a batch."""
        self.results.extend(_compact(sample) for sample in data_samples)


def _compact(value: Any, name: str = '') -> Any:
    if isinstance(value, BaseDataElement):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: _compact(part, key) for key, part in value.items() if not str(key).startswith(DROPPED)}
    if isinstance(value, torch.Tensor):
        value = value.cpu()
        if name == 'masks':
            return [encode(np.asfortranarray(mask.astype(np.uint8))) for mask in value.numpy()]
        if name in ('sem_seg', 'data', 'pan_seg') and not value.is_floating_point() and value.numel():
            return value.to(torch.uint8 if value.min() >= 0 and value.max() < 256 else torch.int32)
    return value

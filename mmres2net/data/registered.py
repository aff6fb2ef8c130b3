"""The data set class that training reads own masks with, and a step of data pipelines that no OpenMMLab library has."""

import os
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from mmres2net.data.formats.base import read_lines
from mmres2net.errors import UserError
from mmres2net.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class PairedSegDataset(BaseDataset):
    """Images with masks of class indices, as samples for mmseg's transforms; 255 in a mask is ignored.

    ``ann_file`` is a list with a line ``IMAGE<tab>MASK`` for each image, in which relative paths are relative to
    ``data_root``; ``metainfo`` has ``classes`` and ``palette``. A UserError says that the list cannot be read.
    """

    label_map, reduce_zero_label, ignore_index = None, False, 255  # as mmseg's data sets name them

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each line of the list, in its order."""
        samples: list[dict[str, Any]] = []
        for number, line in enumerate(read_lines(self.ann_file), 1):
            image, _, mask = (os.path.join(self.data_root, name) if name else '' for name in line.partition('\t'))
            if not image or not mask:
                raise UserError(f'{self.ann_file}: line {number} is {line!r}; write IMAGE, a tab and MASK')
            paths = {'img_path': image, 'seg_map_path': mask}
            samples.append({**paths, 'label_map': None, 'reduce_zero_label': False, 'seg_fields': []})
        return samples


@TRANSFORMS.register_module()
class TrainOnDifficult(BaseTransform):
    """Train on the objects that PASCAL VOC marks as difficult, as the paper's Faster R-CNN baselines did.

    mmdet's loader marks them as regions to ignore, as the protocol of the evaluation has it; the public code with the
    paper's kind of detector trains on them. The step follows ``LoadAnnotations``, in training pipelines alone.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with all of ``gt_ignore_flags`` (N,) false; KeyError: there are none."""
        if 'gt_ignore_flags' not in results:
            raise KeyError('no gt_ignore_flags: put mmres2net.TrainOnDifficult after LoadAnnotations(with_bbox=True)')
        return {**results, 'gt_ignore_flags': np.zeros_like(results['gt_ignore_flags'])}

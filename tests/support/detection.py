"""Annotated images as mmdet's data loaders give them."""

import numpy as np
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor

SHAPES = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')


def detection_sample(boxes: Tensor, labels: Tensor, size: tuple[int, int]) -> DetDataSample:
    """Return an image of a height and width with objects, whose masks are their boxes."""
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    objects = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks, *size))
    return DetDataSample(gt_instances=objects, metainfo={**dict.fromkeys(SHAPES, size), 'scale_factor': (1, 1)})

"""Non-maximum suppression, the soft one included.

Two boxes overlap by their intersection over union. ``offset`` is added to widths and heights: 1 where coordinates are
the indices of the first and last pixel, 0 otherwise.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmres2net.mmcv_ops.common import computable

FloatArray = NDArray[np.float32]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the ``boxes`` (N, 4) that no better one overlaps by more than the threshold, best first."""
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    boxes = computable(boxes)
    # mmcv holds the threshold in single precision, which decides where an overlap equals it.
    return torch.ops.torchvision.nms(boxes, scores.to(boxes.dtype), float(np.float32(iou_threshold)))


def softnms(
    boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float, method: int,
    offset: int,
) -> Tensor:  # fmt: skip
    """Lower the scores of boxes that overlap better ones, and return the indices of those that stay above a score.

    Bodla et al., "Soft-NMS", 2017, figure 2. ``dets`` (N, 5) is filled with the kept boxes (of N, 4, on the CPU) and
    their new scores, in the order of the indices. From the threshold on, method 0 makes a score 0, and method 1
    multiplies it by 1 - overlap; method 2 multiplies all by exp(-overlap^2 / sigma). Below ``min_score`` boxes go.
    """
    corners, score = boxes.detach().float().numpy(), scores.detach().float().numpy().copy()
    left: NDArray[np.int64] = np.arange(len(score))
    kept = []
    while left.size:
        best = score[left].argmax()
        index, left = left[best], np.delete(left, best)
        kept.append((index, score[index]))
        score[left] *= _decay(_overlaps(corners[index], corners[left], offset), iou_threshold, sigma, method)
        left = left[score[left] >= np.float32(min_score)]
    indices = np.array([index for index, _ in kept], dtype=np.int64)
    rows = np.column_stack((corners[indices], np.array([value for _, value in kept], dtype=np.float32)))
    dets[: len(kept)] = torch.from_numpy(rows)
    return torch.from_numpy(indices)


def _decay(overlap: FloatArray, iou_threshold: float, sigma: float, method: int) -> FloatArray:
    if method == 2:
        return np.exp(-overlap * overlap / np.float32(sigma))
    lowered = 1 - overlap if method == 1 else np.zeros_like(overlap)
    return np.where(overlap >= np.float32(iou_threshold), lowered, np.float32(1))


def _overlaps(box: FloatArray, boxes: FloatArray, offset: int) -> FloatArray:
    """Return the intersections over union of (4,) with (N, 4): (N,); 0 where both are empty, for which mmcv has NaN."""
    extent = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + np.float32(offset)
    intersection = extent.clip(0).prod(axis=1)
    area, areas = (np.prod(b[..., 2:] - b[..., :2] + np.float32(offset), axis=-1) for b in (box, boxes))
    union = area + areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)

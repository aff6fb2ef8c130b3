"""Non-maximum suppression, the soft one included.

Two boxes overlap by their intersection over union. ``offset`` is added to widths and heights: 1 where coordinates are
the indices of the first and last pixel, 0 otherwise.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FloatArray = NDArray[np.float32]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the ``boxes`` (N, 4) that no better one overlaps by more than the threshold, best first."""
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    # mmcv holds the threshold in single precision, which decides where an overlap equals it.
    return torch.ops.torchvision.nms(boxes, scores.to(boxes.dtype), float(np.float32(iou_threshold)))


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return one list for each kept box: its index, then those of the boxes it removes, all by falling score.

    ``dets`` (N, 5) on the CPU has left, top, right, bottom and score. A box is removed from the threshold on.
    """
    boxes, scores = dets[:, :4].float().numpy(), dets[:, 4]
    left = scores.sort(descending=True, stable=True)[1].numpy()
    groups = []
    while left.size:
        best, others = left[0], left[1:]
        removed = _overlaps(boxes[best], boxes[others], 0) >= np.float32(iou_threshold)
        groups.append([int(best), *others[removed].tolist()])
        left = others[~removed]
    return groups


def softnms(
    boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float, method: int,
    offset: int,
) -> Tensor:  # fmt: skip
    """Lower the scores of boxes that overlap better ones, and return the indices of those that stay above a score.

    Bodla et al., "Soft-NMS", 2017, figure 2.

    Args:
        boxes: (N, 4) on the CPU.
        scores: (N,).
        dets: (N, 5): filled with the kept boxes and their new scores, in the order of the indices.
        iou_threshold: Overlap from which on the methods 0 and 1 act.
        sigma: Width of method 2.
        min_score: Boxes whose score falls below it go.
        method: 0: the score becomes 0; 1: is multiplied by 1 - overlap; 2: by exp(-overlap^2 / sigma).
    """
    corners, score = boxes.detach().float().numpy(), scores.detach().float().numpy().copy()
    left: NDArray[np.int64] = np.arange(len(score))
    kept = []
    while left.size:
        best = score[left].argmax()
        # The first takes the place of the best: with equal scores, mmcv's order depends on it.
        index, left[best] = left[best], left[0]
        left = left[1:]
        kept.append((index, score[index]))
        score[left] *= _decay(_overlaps(corners[index], corners[left], offset), iou_threshold, sigma, method)
        left = _without(left, score[left] < np.float32(min_score))
    indices = np.array([index for index, _ in kept], dtype=np.int64)
    rows = np.column_stack((corners[indices], np.array([value for _, value in kept], dtype=np.float32)))
    dets[: len(kept)] = torch.from_numpy(rows)
    return torch.from_numpy(indices)


def _decay(overlap: FloatArray, iou_threshold: float, sigma: float, method: int) -> FloatArray:
    if method == 2:
        return np.exp(-overlap * overlap / np.float32(sigma))
    lowered = 1 - overlap if method == 1 else np.zeros_like(overlap)
    return np.where(overlap >= np.float32(iou_threshold), lowered, np.float32(1))


def _without(left: NDArray[np.int64], removed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return ``left`` without the removed ones, whose places the last of the others take."""
    count = int((~removed).sum())
    holes = np.flatnonzero(removed[:count])
    last = np.flatnonzero(~removed)[::-1][: len(holes)]
    left[holes] = left[last]
    return left[:count]


def _overlaps(box: FloatArray, boxes: FloatArray, offset: int) -> FloatArray:
    """Return the intersections over union of (4,) with (N, 4): (N,); 0 where both are empty, for which mmcv has NaN."""
    extent = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + np.float32(offset)
    intersection = extent.clip(0).prod(axis=1)
    area, areas = (np.prod(b[..., 2:] - b[..., :2] + np.float32(offset), axis=-1) for b in (box, boxes))
    union = area + areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)

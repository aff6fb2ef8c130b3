"""The operators written out: plain loops in double precision, which share nothing with the code that they check."""

import itertools
import math

import torch
from torch import Tensor


def overlap(a: Tensor, b: Tensor, offset: float = 0) -> float:
    """Return the intersection over union of two boxes."""
    width = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])) + offset)
    height = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])) + offset)
    areas = [(float(box[2] - box[0]) + offset) * (float(box[3] - box[1]) + offset) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def nms(boxes: Tensor, scores: Tensor, threshold: float, offset: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        if all(overlap(boxes[index], boxes[other], offset) <= threshold for other in kept):
            kept.append(index)
    return kept


def soft_nms(boxes: Tensor, scores: Tensor, method: str, threshold: float, sigma: float, least: float) -> list[tuple]:
    """Return (index, score) of the kept boxes."""
    left = {index: float(score) for index, score in enumerate(scores)}
    kept = []
    while left:
        best = max(left, key=lambda i: left[i])
        kept.append((best, left.pop(best)))
        for index in list(left):
            shared = overlap(boxes[best], boxes[index])
            if method == 'gaussian':
                left[index] *= math.exp(-(shared**2) / sigma)
            elif shared >= threshold:
                left[index] *= 1 - shared if method == 'linear' else 0
            if left[index] < least:
                del left[index]
    return kept


def at(feature: Tensor, y: float, x: float) -> Tensor:
    """Return the bilinear sample of (C, H, W), zero beyond the border."""
    value = feature.new_zeros(len(feature))
    for row, column in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= row < feature.shape[1] and 0 <= column < feature.shape[2]:
            value = value + feature[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def at_clamped(feature: Tensor, y: float, x: float) -> Tensor:
    """Return the sample as RoIAlign takes it: one pixel beyond the border still has the border's value."""
    height, width = feature.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return feature.new_zeros(len(feature))
    return at(feature, min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0))


def roi_align(features: Tensor, rois: Tensor, bins: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Tensor:
    down, across = bins
    output = features.new_zeros(len(rois), features.shape[1], down, across)
    for k, (image, *corners) in enumerate(rois.tolist()):
        left, top, right, bottom = (corner * scale - (0.5 if aligned else 0) for corner in corners)
        width, height = right - left, bottom - top
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        rows, columns = (ratio or math.ceil(extent / n) for extent, n in ((height, down), (width, across)))
        for i, j in itertools.product(range(down), range(across)):
            samples = [
                at_clamped(
                    features[int(image)],
                    float(top + (i + (r + 0.5) / rows) * height / down),
                    float(left + (j + (c + 0.5) / columns) * width / across),
                )
                for r, c in itertools.product(range(rows), range(columns))
            ]
            if samples:
                output[k, :, i, j] = torch.stack(samples).mean(0)
    return output


def roi_pool(features: Tensor, rois: Tensor, bins: int, scale: float) -> Tensor:
    output = features.new_zeros(len(rois), features.shape[1], bins, bins)
    for k, (image, left, top, right, bottom) in enumerate(rois.tolist()):
        width, height = (right + 1 - left) * scale, (bottom + 1 - top) * scale
        if width <= 0 or height <= 0:
            continue
        for i, j in itertools.product(range(bins), range(bins)):
            rows = range(max(0, math.floor(top * scale + i * height / bins)), features.shape[2])
            columns = range(max(0, math.floor(left * scale + j * width / bins)), features.shape[3])
            pixels = [
                features[int(image), :, row, column]
                for row in rows
                for column in columns
                if row < top * scale + (i + 1) * height / bins and column < left * scale + (j + 1) * width / bins
            ]
            if pixels:
                output[k, :, i, j] = torch.stack(pixels).amax(0)
    return output


def deform_conv(
    image: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, stride: int, padding: int, dilation: int,
    groups: int, deform_groups: int,
) -> Tensor:  # fmt: skip
    outs, _, kh, kw = weight.shape
    output = image.new_zeros(len(image), outs, *offset.shape[2:])
    share, out_share, per_deform = image.shape[1] // groups, outs // groups, image.shape[1] // deform_groups
    for n, row, column in itertools.product(range(len(image)), range(offset.shape[2]), range(offset.shape[3])):
        for place, (i, j) in enumerate(itertools.product(range(kh), range(kw))):
            for part in range(deform_groups):
                index = part * kh * kw + place
                dy, dx = offset[n, 2 * index : 2 * index + 2, row, column].tolist()
                y = row * stride - padding + i * dilation + dy
                x = column * stride - padding + j * dilation + dx
                seen = at(image[n], y, x) * (1 if mask is None else mask[n, index, row, column])
                for channel in range(part * per_deform, (part + 1) * per_deform):
                    group, within = divmod(channel, share)
                    outputs = slice(group * out_share, (group + 1) * out_share)
                    output[n, outputs, row, column] += weight[outputs, within, i, j] * seen[channel]
    return output


def deformable_attention(value: Tensor, shapes: list[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    images, queries, heads, levels, points, _ = places.shape
    output = value.new_zeros(images, queries, heads, value.shape[3])
    for n, q, h, level, p in itertools.product(*map(range, (images, queries, heads, levels, points))):
        height, width = shapes[level]
        start = sum(a * b for a, b in shapes[:level])
        feature = value[n, start : start + height * width, h].T.reshape(-1, height, width)
        x, y = places[n, q, h, level, p].tolist()
        output[n, q, h] += weights[n, q, h, level, p] * at(feature, y * height - 0.5, x * width - 0.5)
    return output.flatten(2)

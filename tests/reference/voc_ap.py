"""VOC's average precision written straight down: loops over lists and fractions, no arrays, nothing shared."""

from collections.abc import Sequence
from fractions import Fraction

Box = Sequence[float]


def iou(a: Box, b: Box) -> Fraction:
    ax1, ay1, ax2, ay2 = map(Fraction, a)
    bx1, by1, bx2, by2 = map(Fraction, b)
    width, height = min(ax2, bx2) - max(ax1, bx1) + 1, min(ay2, by2) - max(ay1, by1) + 1
    if width <= 0 or height <= 0:
        return Fraction(0)
    areas = (ax2 - ax1 + 1) * (ay2 - ay1 + 1) + (bx2 - bx1 + 1) * (by2 - by1 + 1)
    return width * height / (areas - width * height)


def voc_ap(
    detections: Sequence[tuple[int, float, Box]],
    objects: Sequence[tuple[int, Box, bool]],
    *,
    eleven_points: bool,
    threshold: Fraction = Fraction(1, 2),
) -> Fraction | None:
    """AP of one class from (image, score, box) and (image, box, difficult); None without an object that counts."""
    positives = sum(not difficult for _, _, difficult in objects)
    if positives == 0:
        return None
    taken: set[int] = set()
    true = false = 0
    curve: list[tuple[Fraction, Fraction]] = []
    for image, _, box in sorted(detections, key=lambda one: -one[1]):
        best, nearest = Fraction(-1), -1
        for i, (where, other, _) in enumerate(objects):
            if where == image and iou(box, other) > best:
                best, nearest = iou(box, other), i
        if best >= threshold and objects[nearest][2]:
            continue
        if best >= threshold and nearest not in taken:
            taken.add(nearest)
            true += 1
        else:
            false += 1
        curve.append((Fraction(true, positives), Fraction(true, true + false)))
    if eleven_points:
        tenths = [Fraction(i, 10) for i in range(11)]
        return sum((max([p for r, p in curve if r >= t], default=Fraction(0)) for t in tenths), Fraction(0)) / 11
    area, last = Fraction(0), Fraction(0)
    for i, (recall, _) in enumerate(curve):
        area += (recall - last) * max(p for _, p in curve[i:])
        last = recall
    return area

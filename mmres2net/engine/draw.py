"""Data samples as images: annotations and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import mmcv
import numpy as np

from mmres2net.drawing import Color, class_color, draw_boxes, draw_label_map, draw_masks, make_sheet

TITLES = {'gt': 'annotation', 'pred': 'prediction'}
IGNORED = 255  # the label of pixels that are not evaluated


def draw_sample(sample: Any, meta: Mapping[str, Any], score_thr: float = 0.3) -> np.ndarray:
    """Return the annotations and the predictions of one image side by side, (H, W, 3) uint8 RGB.

    ``sample`` is an OpenMMLab data sample with ``img_path``; ``meta`` has the ``classes`` and the ``palette`` of the
    data set. Detections with a lower score than ``score_thr`` are not drawn.
    """
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    drawn = [draw_part(image, sample, part, meta, score_thr) for part in TITLES]
    titles = [[title, *lines] for title, (_, lines) in zip(TITLES.values(), drawn, strict=True)]
    return make_sheet([one for one, _ in drawn], titles)


def draw_part(
    image: np.ndarray, sample: Any, part: str, meta: Mapping[str, Any], score_thr: float = 0.3
) -> tuple[np.ndarray, list[str]]:
    """Draw ``gt`` or ``pred`` of a sample over its image (H, W, 3) uint8, RGB: boxes, masks, a label map.

    A class of the image is a line of text. Otherwise as :func:`draw_sample`.
    """
    classes = meta.get('classes') or ()
    colors = [class_color(index, meta.get('palette') or ()) for index in range(max(len(classes), IGNORED + 1))]
    lines = []
    if f'{part}_instances' in sample:
        image = _draw_instances(image, sample.get(f'{part}_instances'), classes, colors, score_thr)
    if f'{part}_sem_seg' in sample:
        labels = sample.get(f'{part}_sem_seg').data.squeeze(0).long().cpu().numpy()  # mmseg's binary maps are floats
        image = draw_label_map(image, labels, [*colors[:IGNORED], None, *colors[IGNORED + 1 :]])
    if f'{part}_label' in sample:
        lines.append(', '.join(_name(label, classes) for label in sample.get(f'{part}_label').flatten().tolist()))
    return image, lines


def _draw_instances(
    image: np.ndarray, instances: Any, classes: Sequence[str], colors: Sequence[Color], score_thr: float
) -> np.ndarray:
    if 'scores' in instances:
        instances = instances[instances.scores >= score_thr]
    labels = instances.labels.tolist()
    chosen = [colors[label % len(colors)] for label in labels]
    if not labels:
        return image
    if 'masks' in instances:
        masks = instances.masks
        masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks.cpu().numpy()
        image = draw_masks(image, masks.astype(bool), chosen)
    boxes = instances.bboxes
    scores = [f' {score:.2f}' for score in instances.scores.tolist()] if 'scores' in instances else [''] * len(labels)
    texts = [_name(label, classes) + score for label, score in zip(labels, scores, strict=True)]
    return draw_boxes(image, getattr(boxes, 'tensor', boxes).tolist(), texts, chosen)


def _name(label: int, classes: Sequence[str]) -> str:
    return str(classes[label]) if label < len(classes) else f'class {label}'

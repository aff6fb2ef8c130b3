"""Predictions as text, JSON, COCO annotations, label maps and drawn images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmres2net.drawing import add_legend, class_color, draw_boxes, draw_heat_map, draw_label_map, draw_masks
from mmres2net.predict.masks import decode_mask
from mmres2net.predict.metadata import ExportMetadata
from mmres2net.predict.model import Prediction

Array = npt.NDArray[Any]
TOP = 5  # classes of a classifier that are listed


def describe(prediction: Prediction, metadata: ExportMetadata) -> dict[str, Any]:
    """Return a prediction as data for JSON: detections, classes by score or share of pixels, or sizes of features."""
    name = metadata.class_name
    if metadata.task == 'detection':
        rows = []
        for index, (box, score, label) in enumerate(_detections(prediction)):
            rounded = [round(value, 3) for value in box]
            rows.append({'class': name(label), 'label': label, 'score': round(score, 5), 'box': rounded})
            if 'masks' in prediction:
                rows[-1]['segmentation'] = prediction['masks'][index]
        return {'detections': rows}
    if metadata.task == 'segmentation':
        labels, counts = np.unique(prediction['classes'], return_counts=True)
        order = np.argsort(-counts, kind='stable')
        return {'shares': {name(int(labels[i])): round(float(counts[i] / counts.sum()), 4) for i in order}}
    if metadata.task == 'classification':
        best = np.argsort(-prediction['scores'], kind='stable')[:TOP]
        scores = [(int(label), round(float(prediction['scores'][label]), 5)) for label in best]
        return {'classes': [{'class': name(label), 'label': label, 'score': score} for label, score in scores]}
    return {'features': {key: list(value.shape) for key, value in prediction.items()}}


def _detections(prediction: Prediction) -> list[tuple[list[float], float, int]]:
    columns = (prediction[key].tolist() for key in ('boxes', 'scores', 'labels'))
    return list(zip(*columns, strict=True))


def format_prediction(path: Path, content: dict[str, Any]) -> str:
    """Return what :func:`describe` gives as lines of text."""
    (kind, entries), *_ = content.items()
    if kind == 'detections':
        rows = [
            f'  {row["class"]:<16} {row["score"]:.3f}  box {" ".join(f"{value:.1f}" for value in row["box"])}'
            for row in entries
        ]
        return '\n'.join([f'{path}: {len(rows)} detections', *rows])
    if kind == 'classes':
        return '\n'.join([f'{path}:', *(f'  {row["class"]:<16} {row["score"]:.3f}' for row in entries)])
    rows = [f'  {name:<16} {f"{value:.1%}" if kind == "shares" else value}' for name, value in entries.items()]
    return '\n'.join([f'{path}:', *rows])


def to_coco(predictions: list[tuple[str, tuple[int, int], Prediction]], metadata: ExportMetadata) -> dict[str, Any]:
    """Return detections in the form of a COCO annotation file, with a ``score`` for each annotation.

    Args:
        predictions: For each image its file name, its height and width, and its detections.
        metadata: That of the exported file.

    Returns:
        ``images``, ``annotations`` and ``categories``. Ids begin at 1; the category of class k is k + 1. Boxes are
        left, top, width, height; masks are compressed run lengths.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, size, prediction) in enumerate(predictions, start=1):
        images.append({'id': number, 'file_name': name, 'height': size[0], 'width': size[1]})
        for index, (box, score, label) in enumerate(_detections(prediction)):
            width, height = box[2] - box[0], box[3] - box[1]
            entry: dict[str, Any] = {
                'id': len(annotations) + 1,
                'image_id': number,
                'category_id': label + 1,
                'score': score,
            }
            entry |= {'bbox': [box[0], box[1], width, height], 'area': width * height, 'iscrowd': 0}
            if 'masks' in prediction:
                mask = prediction['masks'][index]
                entry |= {'segmentation': mask, 'area': int(decode_mask(mask).sum())}
            annotations.append(entry)
    labels = max([len(metadata.classes), *(entry['category_id'] for entry in annotations)])
    categories = [{'id': label + 1, 'name': metadata.class_name(label)} for label in range(labels)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def label_map(classes: Array, metadata: ExportMetadata) -> Image.Image:
    """Return a map of classes (H, W) as an image whose pixel values are the classes: 8 bits with a palette, or 16."""
    if classes.max() > 255:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8), 'P')
    image.putpalette([value for label in range(256) for value in class_color(label, metadata.palette)])
    return image


def draw_prediction(image: Array, prediction: Prediction, metadata: ExportMetadata) -> Array:
    """Return ``image`` (H, W, 3) with a prediction drawn into it or, for classes, listed below it.

    The features of a backbone are drawn as the mean absolute value of its last stage.
    """
    if metadata.task == 'segmentation':
        labels = np.unique(prediction['classes']).tolist()
        colors = [class_color(label, metadata.palette) for label in range(max(labels) + 1)]
        drawn = draw_label_map(image, prediction['classes'], colors)
        return add_legend(drawn, '', [(metadata.class_name(label), colors[label]) for label in labels])
    if metadata.task == 'detection':
        rows = _detections(prediction)
        colors = [class_color(label, metadata.palette) for _, _, label in rows] or [(255, 255, 255)]
        texts = [f'{metadata.class_name(label)} {score:.2f}' for _, score, label in rows]
        drawn = draw_masks(image, (decode_mask(mask) for mask in prediction.get('masks', ())), colors)
        return draw_boxes(drawn, prediction['boxes'], texts, colors)
    if metadata.task == 'classification':
        rows = describe(prediction, metadata)['classes']
        texts = [f'{row["class"].split(",")[0]} {row["score"]:.2f}' for row in rows]
        return add_legend(image, '', [(text, class_color(row['label'])) for text, row in zip(texts, rows, strict=True)])
    strength = np.abs(prediction[metadata.outputs[-1]]).mean(0)
    return draw_heat_map(image, (strength - strength.min()) / max(float(np.ptp(strength)), 1e-12))

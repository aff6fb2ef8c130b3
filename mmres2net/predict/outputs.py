"""Predictions as text, as data for JSON, as maps and as drawn images."""

from __future__ import annotations

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
        for index, (box, score, label) in enumerate(detections_of(prediction)):
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


def detections_of(prediction: Prediction) -> list[tuple[list[float], float, int]]:
    """Return box, score and label of each detection."""
    columns = (prediction[key].tolist() for key in ('boxes', 'scores', 'labels'))
    return list(zip(*columns, strict=True))


def format_prediction(name: str, content: dict[str, Any]) -> str:
    """Return what :func:`describe` gives as lines of text."""
    (kind, entries), *_ = content.items()
    if kind == 'detections':
        rows = [
            f'  {row["class"]:<16} {row["score"]:.3f}  box {" ".join(f"{value:.1f}" for value in row["box"])}'
            for row in entries
        ]
        return '\n'.join([f'{name}: {len(rows)} detections', *rows])
    if kind == 'classes':
        return '\n'.join([f'{name}:', *(f'  {row["class"]:<16} {row["score"]:.3f}' for row in entries)])
    rows = [f'  {name:<16} {f"{value:.1%}" if kind == "shares" else value}' for name, value in entries.items()]
    return '\n'.join([f'{name}:', *rows])


def label_map(classes: Array, metadata: ExportMetadata) -> Image.Image:
    """Return a map of classes (H, W) as an image whose pixel values are the classes: 8 bits with a palette, or 16."""
    if classes.max() > 255:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8), 'P')
    image.putpalette([value for label in range(256) for value in class_color(label, metadata.palette)])
    return image


def saliency_map(probabilities: Array) -> Image.Image:
    """Return probabilities (H, W) as an 8-bit grey image, ``round(255 p)``."""
    return Image.fromarray(np.rint(255 * np.clip(probabilities, 0, 1)).astype(np.uint8))


def keep_above(prediction: Prediction, score: float) -> Prediction:
    """Return a prediction without the detections below a score; those of other tasks as they are."""
    if 'boxes' not in prediction:
        return prediction
    kept = prediction['scores'] >= score
    out = {key: prediction[key][kept] for key in ('boxes', 'scores', 'labels')}
    if 'masks' in prediction:
        out['masks'] = [mask for mask, keep in zip(prediction['masks'], kept, strict=True) if keep]
    return out


def draw_prediction(image: Array, prediction: Prediction, metadata: ExportMetadata, *, legend: bool = True) -> Array:
    """Return ``image`` (H, W, 3) with a prediction drawn into it or, for classes, listed below it.

    The features of a backbone are drawn as the mean absolute value of its last stage.

    Args:
        image: (H, W, 3) uint8 RGB.
        prediction: That of a model.
        metadata: What is known about the model.
        legend: Whether lines may be added below the image; without them, a classifier's best class is written into it.
    """
    if 'saliency' in prediction:
        return draw_heat_map(image, prediction['saliency'])
    if metadata.task == 'segmentation':
        labels = np.unique(prediction['classes']).tolist()
        colors = [class_color(label, metadata.palette) for label in range(max(labels) + 1)]
        drawn = draw_label_map(image, prediction['classes'], colors)
        names = [(metadata.class_name(label), colors[label]) for label in labels]
        return add_legend(drawn, '', names) if legend else drawn
    if metadata.task == 'detection':
        rows = detections_of(prediction)
        colors = [class_color(label, metadata.palette) for _, _, label in rows] or [(255, 255, 255)]
        texts = [f'{metadata.class_name(label)} {score:.2f}' for _, score, label in rows]
        drawn = draw_masks(image, (decode_mask(mask) for mask in prediction.get('masks', ())), colors)
        return draw_boxes(drawn, prediction['boxes'], texts, colors)
    if metadata.task == 'classification':
        rows = describe(prediction, metadata)['classes']
        entries = [(f'{row["class"].split(",")[0]} {row["score"]:.2f}', class_color(row['label'])) for row in rows]
        if legend:
            return add_legend(image, '', entries)
        return draw_boxes(image, [(0, 0, image.shape[1], image.shape[0])], [entries[0][0]], [entries[0][1]])
    strength = np.abs(prediction[metadata.outputs[-1]]).mean(0)
    return draw_heat_map(image, (strength - strength.min()) / max(float(np.ptp(strength)), 1e-12))

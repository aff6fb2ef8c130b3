"""Predictions and annotations as the OpenMMLab libraries pass them to a metric, and generated ones in COCO's form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import Evaluator

Boxes = Sequence[Sequence[float]]


def run(evaluator: Evaluator, samples: Sequence[Any]) -> dict[str, float]:
    """Evaluate samples in batches of two."""
    for i in range(0, len(samples), 2):
        evaluator.process(data_samples=samples[i : i + 2], data_batch=None)
    return evaluator.evaluate(len(samples))


def instances(boxes: Boxes, labels: Sequence[int], scores: Sequence[float] | None = None) -> dict[str, Any]:
    """The dict of an InstanceData with these boxes (corners)."""
    fields = {'bboxes': torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), 'labels': torch.tensor(labels).long()}
    return fields if scores is None else {**fields, 'scores': torch.tensor(scores, dtype=torch.float64)}


def coco_truth(images: int, classes: int, seed: int, *, masks: bool = False) -> dict[str, Any]:
    """A COCO annotation dict with crowds, images without objects, a class without any, and areas at the borders."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(0 if image % 5 == 0 else rng.integers(1, 9)):
            # 32 x 32 and 96 x 96 are the borders themselves: such an object is of both sizes.
            side = (
                rng.choice([8, 20, 32, 33, 60, 96, 97, 150], size=2)
                if rng.random() < 0.7
                else rng.choice([[32, 32], [96, 96]])
            )
            x, y, w, h = *(int(v) for v in rng.integers(0, 200, 2)), int(side[0]), int(side[1])
            annotations.append({
                'id': len(annotations) + 1, 'image_id': image, 'category_id': 10 * int(rng.integers(1, classes)),
                'bbox': [x, y, w, h], 'area': float(w * h), 'iscrowd': int(rng.random() < 0.1),
                'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
            })  # fmt: skip
    for one in annotations if masks else []:
        x, y, w, h = one['bbox']
        one['segmentation'] = triangle(one['bbox'])
        one['area'] = w * h * 5 / 12
        if one['iscrowd']:
            one['segmentation'] = {'size': [400, 400], 'counts': [400 * x + y, *([h, 400 - h] * w)]}
            one['segmentation']['counts'][-1] += 400 * 400 - sum(one['segmentation']['counts'])
    categories = [{'id': 10 * k, 'name': f'class {k}'} for k in range(1, classes + 1)]
    sizes = [{'id': i, 'width': 400, 'height': 400, 'file_name': f'{i}.jpg'} for i in range(1, images + 1)]
    return {'images': sizes, 'categories': categories, 'annotations': annotations}


def triangle(box: Sequence[float]) -> list[list[float]]:
    """The polygon of the masks: a triangle that touches the sides of its box (x, y, width, height)."""
    x, y, w, h = box
    return [[x, y, x + w, y + h / 3, x + w / 2, y + h]]


def coco_detections(truth: dict[str, Any], seed: int, *, per_image: int = 20) -> list[dict[str, Any]]:
    """Boxes near the objects, doubled ones and strays; scores of two decimals, so that many are equal."""
    rng = np.random.default_rng(seed)
    ids = [category['id'] for category in truth['categories']]
    found: list[dict[str, Any]] = []
    for image in truth['images']:
        mine = [one for one in truth['annotations'] if one['image_id'] == image['id']]
        for _ in range(per_image if image['id'] % 7 else 0):
            near = mine[rng.integers(len(mine))] if mine and rng.random() < 0.7 else None
            box = np.array(near['bbox'], float) if near else np.r_[rng.uniform(0, 250, 2), rng.uniform(4, 150, 2)]
            box[:2] += rng.normal(0, 2, 2)
            box[2:] *= rng.uniform(0.85, 1.2, 2)
            kind = near['category_id'] if near and rng.random() < 0.9 else int(rng.choice(ids))
            found.append({
                'image_id': image['id'], 'category_id': kind, 'bbox': box.tolist(), 'score': round(rng.random(), 2)
            })  # fmt: skip
    return found

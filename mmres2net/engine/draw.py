"""Annotations beside predictions as images, for the first images of each evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from PIL import Image

from mmres2net.drawing import class_color, draw_boxes, draw_label_map, draw_masks, make_sheet
from mmres2net.errors import reason_of
from mmres2net.registry import HOOKS

FOLDER = 'predictions'
TITLES = {'gt': 'annotation', 'pred': 'prediction'}
IGNORED = 255  # the label of pixels that are not evaluated


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draw annotations (left) beside predictions (right) for the first images of each evaluation.

    The files are ``WORK_DIR/predictions/IMAGE.png``. A later evaluation replaces them, so the folder does not grow. If
    an image cannot be drawn, the run continues, and the log says why.

    Args:
        count: Number of images.
        score_thr: Detections with a lower score are not drawn.
    """

    priority = 'LOW'

    def __init__(self, *, count: int = 8, score_thr: float = 0.3) -> None:
        self.count, self.score_thr = count, score_thr
        self._drawn = 0
        self._warned = False

    def before_val(self, runner: Runner) -> None:
        self._drawn = 0

    before_test = before_val

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._draw(runner, runner.val_dataloader.dataset, outputs or ())

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._draw(runner, runner.test_dataloader.dataset, outputs or ())

    def _draw(self, runner: Runner, dataset: Any, samples: Sequence[Any]) -> None:
        if not is_main_process():
            return
        for sample in samples[: self.count - self._drawn]:
            self._drawn += 1
            if not sample.get('img_path'):  # data sets in one file, such as CIFAR
                continue
            try:
                path = Path(runner.work_dir) / FOLDER / f'{Path(sample.img_path).stem}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                sheet = draw_sample(sample, getattr(dataset, 'metainfo', None) or {}, self.score_thr)
                Image.fromarray(sheet).save(path)
            except Exception as error:  # a drawing is not worth a run
                if not self._warned:
                    print_log(f'predictions cannot be drawn: {reason_of(error)}', 'current', logging.WARNING)
                self._warned = True


def draw_sample(sample: Any, meta: Mapping[str, Any], score_thr: float = 0.3) -> np.ndarray:
    """Draw the annotations and the predictions of one image side by side.

    Args:
        sample: An OpenMMLab data sample of detection, segmentation or classification, with ``img_path``.
        meta: What the data set says of its classes: ``classes`` and ``palette``.
        score_thr: Detections with a lower score are not drawn.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    classes = meta.get('classes') or ()
    colors = [class_color(index, meta.get('palette') or ()) for index in range(max(len(classes), IGNORED + 1))]
    images, titles = [], []
    for part, title in TITLES.items():
        drawn, lines = image, [title]
        if f'{part}_instances' in sample:
            drawn = _draw_instances(drawn, sample.get(f'{part}_instances'), classes, colors, score_thr)
        if f'{part}_sem_seg' in sample:
            labels = sample.get(f'{part}_sem_seg').data.squeeze(0).cpu().numpy()
            drawn = draw_label_map(drawn, labels, [*colors[:IGNORED], None, *colors[IGNORED + 1 :]])
        if f'{part}_label' in sample:
            lines.append(', '.join(_name(label, classes) for label in sample.get(f'{part}_label').flatten().tolist()))
        images.append(drawn)
        titles.append(lines)
    return make_sheet(images, titles)


def _draw_instances(
    image: np.ndarray, instances: Any, classes: Sequence[str], colors: Sequence[Any], score_thr: float
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

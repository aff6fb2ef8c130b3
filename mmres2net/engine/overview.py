"""The training data as images: what is annotated, and batches as the network gets them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmres2net.drawing import resize_within
from mmres2net.engine.draw import draw_part
from mmres2net.plots import NothingToDraw, draw_bars

MOST_IMAGES, MOST_MASKS, TILE = 5000, 40, 320  # images and masks that are counted; pixels of an image on a sheet


def draw_annotations(folder: Path, dataset: Any) -> None:
    """Draw how often each class is annotated as ``labels.png``.

    Of a large set, evenly spread images are counted; of a segmentation, the pixels of a few samples.

    Raises:
        NothingToDraw: The data set names no classes, or nothing is annotated.
    """
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not classes or not hasattr(dataset, 'get_data_info'):
        raise NothingToDraw('the training data set names no classes')
    counts, unit = np.zeros(len(classes), np.int64), 'images'
    chosen = _spread(len(dataset), MOST_IMAGES)
    infos = [dataset.get_data_info(index) for index in chosen]
    for info in infos:
        counts += np.bincount(np.ravel(info.get('gt_label', ())).astype(int), minlength=len(classes))
        for one in [one for one in info.get('instances', ()) if not one.get('ignore_flag')]:
            unit = 'objects'
            counts[one['bbox_label']] += 1
    if 'seg_map_path' in infos[0] and not counts.any():
        unit, chosen = 'pixels', _spread(len(dataset), MOST_MASKS)
        for index in chosen:
            labels = dataset[index]['data_samples'].gt_sem_seg.data.numpy().ravel()
            counts += np.bincount(labels[labels < len(classes)], minlength=len(classes))
    title = f'{unit} of each class in {len(chosen):,} of {len(dataset):,} training images'
    draw_bars(folder / 'labels.png', list(classes), {unit: counts.astype(float)}, title, counts=True)


def _spread(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def batch_images(batch: Any, dataset: Any) -> list[tuple[np.ndarray, list[str]]]:
    """Return the images of a training batch with their annotations, after augmentation and before normalization.

    Boxes and masks are drawn; the classes of an image are lines of text beside it.

    Raises:
        NothingToDraw: The batch is of an unknown form.
    """
    if not isinstance(batch, Mapping) or not {'inputs', 'data_samples'} <= set(batch):
        raise NothingToDraw('batches of this form are not drawn')
    meta, images = getattr(dataset, 'metainfo', None) or {}, []
    for pixels, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        if getattr(pixels, 'ndim', 0) != 3 or pixels.shape[0] not in (1, 3):
            raise NothingToDraw('the inputs are no images')
        image = pixels.detach().cpu().float().numpy().transpose(1, 2, 0)
        if pixels.is_floating_point():  # normalized in the pipeline
            image = 255 * (image - image.min()) / max(float(np.ptp(image)), 1e-6)
        image = np.repeat(image, 3 // image.shape[2], 2).astype(np.uint8)[..., :: -1 if _reads_bgr(dataset) else 1]
        drawn, lines = draw_part(np.ascontiguousarray(image), sample, 'gt', meta)
        images.append((resize_within(drawn, TILE, TILE), lines))
    return images


def _reads_bgr(dataset: Any) -> bool:
    """Return whether the pipeline reads files by OpenCV, whose channels are blue, green, red."""
    while inner := getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None):
        dataset = inner[0] if isinstance(inner, list) else inner
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    return any(type(step).__name__.startswith('LoadImage') for step in steps)

"""Data samples as images: annotations, predictions, batches as the network gets them; how often classes occur."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np

from mmres2net.drawing import Color, class_color, draw_boxes, draw_label_map, draw_masks, make_sheet, resize_within
from mmres2net.plots import NothingToDraw, draw_bars

TITLES = {'gt': 'annotation', 'pred': 'prediction'}
MOST_IMAGES, MOST_MASKS, TILE = 5000, 40, 320  # images and masks that are counted; pixels of an image on a sheet
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


def draw_annotations(folder: Path, dataset: Any) -> None:
    """Draw how often each class is annotated as ``labels.png``.

    Of a large set, evenly spread images are counted; of a segmentation, the pixels of a few samples. NothingToDraw: the
    data set names no classes, or nothing is annotated.
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

    Boxes and masks are drawn; the classes of an image are lines of text beside it. NothingToDraw: an unknown form.
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

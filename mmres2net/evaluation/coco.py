"""COCO's metrics of a detector, as a metric of MMEngine: AP, AP50, AP75, AP and AR by size, for boxes and masks.

Names are mmdet's (``coco/bbox_mAP``, ``bbox_mAP_50``, ``bbox_AR@100``, ...). Unlike mmdet's ``CocoMetric``, all twelve
are given, unrounded, each at COCO's own limits: mmdet takes AP at 100 detections an image but AP50 and the others at
1,000, and counts images of the file that were never shown as missed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import exists, get
from mmengine.logging import print_log
from pycocotools import mask as coco_masks

from mmres2net.data.formats.objects import category_fault, coco_content
from mmres2net.errors import UserError
from mmres2net.evaluation.labels import check_labels, class_names, class_table
from mmres2net.evaluation.matches import SIZES, Matches, average_precision, match, recall_at, usable_annotation
from mmres2net.registry import METRICS

KINDS = ('bbox', 'segm')
TABLE = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75', 'APs': 'mAP_s', 'APm': 'mAP_m', 'APl': 'mAP_l'}


@METRICS.register_module()
class COCOMetric(BaseMetric):
    """Evaluate boxes and masks by the COCO protocol, on the images that were shown.

    ``ann_file`` is the COCO annotation file of the split, ``metric`` is ``bbox``, ``segm`` or both; ``classwise`` also
    gives ``bbox_AP_NAME`` for each class, and logs a table. The others are MMEngine's. A UserError names an unknown
    kind and a file that is not there or of another form.
    """

    default_prefix = 'coco'

    def __init__(
        self, ann_file: str, *, metric: str | Sequence[str] = 'bbox', classwise: bool = False,
        backend_args: dict[str, Any] | None = None, prefix: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(prefix=prefix)
        self.kinds = (metric,) if isinstance(metric, str) else tuple(metric)
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            known = ', '.join(KINDS)
            raise UserError(f'metric={metric!r} is not known: choose from {known} (proposals: mmdet.CocoMetric)')
        self.classwise, self.ann_file = classwise, str(ann_file)
        self.matches: dict[str, Matches] = {}  # of the last evaluation, by kind, for plots
        self._truth = _read(self.ann_file, backend_args)
        if 'annotations' not in self._truth:
            raise UserError(f'ann_file={self.ann_file!r} has no annotations: use another split, or predict --ann')

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """Metadata of the data set; a UserError if its classes are not those of the annotation file, in its order."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, Any]) -> None:
        self._dataset_meta = meta
        classes = class_names(meta)
        fault = category_fault(self._truth['categories'], classes, self.ann_file)
        if fault:
            raise UserError(fault)
        self.categories = [category for category in self._truth['categories'] if category['name'] in classes]
        self._check_annotations()

    def _check_annotations(self) -> None:
        """Check each annotation before the first epoch instead of behind it."""
        images: dict[Any, dict[str, Any]] = {}
        for i, image in enumerate(self._truth['images']):
            if not isinstance(image, dict) or not isinstance(image.get('id'), int | float | str):
                raise UserError(f'{self.ann_file}: images[{i}] has no id')
            if image['id'] in images:
                raise UserError(f'{self.ann_file}: images[{i}] has the id {image["id"]!r} of another one')
            images[image['id']] = image
        ids = {category['id'] for category in self.categories}
        for i, entry in enumerate(self._truth['annotations']):
            try:
                if entry['category_id'] in ids and entry['image_id'] in images:
                    for kind in self.kinds:
                        usable_annotation(entry, kind, images[entry['image_id']])
            except (KeyError, TypeError, ValueError) as error:
                reason = f'no {error.args[0]!r}' if isinstance(error, KeyError) else error
                raise UserError(f'{self.ann_file}: annotations[{i}] cannot be evaluated: {reason}') from error

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the predictions of a batch; masks are run-length encoded at once.

        The samples are dicts as mmdet's models return them: ``img_id`` and ``pred_instances`` with ``bboxes`` (n, 4) of
        corners in pixels of the original image, ``scores`` (n), ``labels`` (n), for masks also ``masks`` (n, H, W) or n
        RLE dicts, and perhaps ``mask_scores`` (n). A UserError names masks that are missing or of another number, and
        labels that no class has.
        """
        for sample in data_samples:
            instances = sample['pred_instances']
            result = {'image_id': sample['img_id'], 'masks': None}
            result |= {key: _array(instances[key]) for key in ('bboxes', 'scores', 'labels')}
            check_labels(result['labels'], len(self.categories))
            result['mask_scores'] = _array(instances['mask_scores']) if 'mask_scores' in instances else result['scores']
            if 'segm' in self.kinds:
                result['masks'] = self._encoded(instances, len(result['labels']))
            self.results.append(result)

    def _encoded(self, instances: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
        if 'masks' not in instances:
            raise UserError("metric='segm', but the model predicts no masks: set metric='bbox', or use a mask head")
        masks = instances['masks']
        if not isinstance(masks, list):
            # Encoded in columns: (n, H, W) becomes (H, W, n) in Fortran's order.
            planes = np.asfortranarray(_array(masks).astype(np.uint8).transpose(1, 2, 0))
            masks = coco_masks.encode(planes) if count else []
        if len(masks) != count:
            raise UserError(f'{len(masks)} masks for {count} labels in one prediction: there has to be one for each')
        return masks

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Evaluate what :meth:`process` kept, AP first; a UserError: no image, one twice, or one without annotation."""
        truth = self._shown([result['image_id'] for result in results])
        metrics: dict[str, float] = {}
        self.matches = {}
        for kind in self.kinds:
            detections = [detection for result in results for detection in self._detections(result, kind)]
            self.matches[kind] = match(truth, detections, kind)
            overall, by_class = evaluate(self.matches[kind])
            metrics |= {f'{kind}_{name}': value for name, value in overall.items()}
            if self.classwise:
                metrics |= {f'{kind}_AP_{name}': values['mAP'] for name, values in by_class.items()}
                rows = [[name, *(values[key] for key in TABLE.values())] for name, values in by_class.items()]
                print_log(f'{kind} by class:\n' + class_table(['class', *TABLE], rows), 'current')
        return metrics

    def _shown(self, ids: Sequence[Any]) -> dict[str, Any]:
        """Return the part of the annotations that concerns the images ``ids`` and the evaluated classes."""
        if not ids:
            raise UserError('no image was evaluated: is the split empty, or the data loader?')
        shown = set(ids)
        if len(shown) < len(ids):
            twice = next(id_ for id_ in ids if ids.count(id_) > 1)
            raise UserError(f'image {twice!r} was evaluated twice; remove the wrapper that repeats the data set')
        images = [image for image in self._truth['images'] if image['id'] in shown]
        if len(images) < len(shown):
            unknown = next(iter(shown - {image['id'] for image in images}))
            raise UserError(f'{self.ann_file} has no image {unknown!r}; it has to be the file that the data set reads')
        if len(images) < len(self._truth['images']):
            of_all = f'{len(images)} of the {len(self._truth["images"])} images of {self.ann_file}'
            print_log(f'evaluated on {of_all}', 'current')
        wanted = {category['id'] for category in self.categories}
        annotations = self._truth.get('annotations', [])
        kept = [one for one in annotations if one['image_id'] in shown and one['category_id'] in wanted]
        return {'images': images, 'categories': self.categories, 'annotations': kept}

    def _detections(self, result: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
        ids = [self.categories[label]['id'] for label in result['labels']]
        if kind == 'segm':
            shapes = [{'segmentation': mask} for mask in result['masks']]
        else:
            boxes = result['bboxes'].astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            shapes = [{'bbox': box} for box in boxes.tolist()]
        scores = result['mask_scores' if kind == 'segm' else 'scores'].tolist()
        return [
            {'image_id': result['image_id'], 'category_id': id_, 'score': score, **shape}
            for id_, score, shape in zip(ids, scores, shapes, strict=True)
        ]


def _read(path: str, backend_args: dict[str, Any] | None) -> dict[str, Any]:
    if not exists(path, backend_args=backend_args):
        raise UserError(f'ann_file={path!r} is not there (seen from {Path.cwd()})')
    return coco_content(get(path, backend_args=backend_args), f'ann_file={path!r}')


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)


class Metrics(NamedTuple):
    """COCO's twelve metrics as fractions, in its order, over all classes and by class; -1 where nothing counts."""

    overall: dict[str, float]
    by_class: dict[str, dict[str, float]]


def evaluate(matches: Matches) -> Metrics:
    """Return the twelve metrics of what was matched.

    Protocol: https://cocodataset.org/#detection-eval (IoU 0.50 to 0.95 by 0.05; at most 1, 10 or 100 detections of an
    image; small, medium and large split at 32 x 32 and 96 x 96 pixels; crowds ignored).
    """
    ap = average_precision(matches)
    values = {'mAP': ap, 'mAP_50': ap[:1], 'mAP_75': ap[5:6]}
    values |= {f'mAP_{size}': average_precision(matches, area) for size, area in SIZES.items()}
    values |= {f'AR@{limit}': recall_at(matches, limit) for limit in (1, 10, 100)}
    values |= {f'AR_{size}@100': recall_at(matches, 100, area) for size, area in SIZES.items()}
    by_class = {str(name): {m: _mean(v[:, k]) for m, v in values.items()} for k, name in enumerate(matches.classes)}
    return Metrics({metric: _mean(each) for metric, each in values.items()}, by_class)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else -1.0

"""The metrics of salient object detection (table 9), for each data set.

Table 9 has F and MAE. It does not say which F; the tools of its time average precision and recall over the images of a
data set at each of 256 thresholds, and report the largest F of these averages (``maxF``). Others average the F of each
image first (``maxF_images``). The two differ by as much as some papers do, so both are reported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmres2net.errors import UserError
from mmres2net.evaluation.labels import class_table
from mmres2net.registry import METRICS
from mmres2net.saliency.maps import grey_map
from mmres2net.saliency.measures import Measured, add, dataset_metrics, load_library, measure


@METRICS.register_module()
class SaliencyMetric(BaseMetric):
    """Metrics ``maxF``, ``meanF``, ``adpF``, ``wF``, ``MAE``, ``Sm``, ``maxE``, ``meanE``, ``adpE``, ``maxF_images``.

    Samples have the name of their data set (``dataset_name``). With several data sets, the metrics are called
    ``NAME/maxF`` and so on; with one, or without names, ``maxF``, as in ``save_best='maxF', rule='greater'``. All are
    fractions; PySODMetrics computes them (see ``measures.py``).

    Maps are rounded to 8 bits first, exactly as ``SaliencyMapsHook`` writes them, so that the written files have the
    same metrics.

    Args:
        stretch: Rescale each map first, so that its minimum is 0 and its maximum 1, as DSS does with its output and the
            usual tools with every map. It changes MAE most; a constant map is not rescaled.
        format_only: Compute nothing, for images without masks; ``SaliencyMapsHook`` writes their maps.
        collect_device: Device on which the results of several processes are collected: ``cpu`` or ``gpu``.
        prefix: Prefix of the names of the metrics; none by default.

    Raises:
        UserError: PySODMetrics is not installed.
    """

    default_prefix = ''

    def __init__(
        self, *, stretch: bool = True, format_only: bool = False, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not format_only:
            load_library()
        self.stretch, self.format_only = stretch, format_only
        self.kept: dict[str, Any] = {}  # of the last evaluation, to compare runs

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measure the maps of a batch.

        Args:
            data_batch: Not used.
            data_samples: Dicts as mmseg's models with one output channel return them: ``seg_logits`` with ``data``
                (1, H, W) of probabilities, ``gt_sem_seg`` with ``data`` (1, H, W) of 0 and 1, ``img_path`` and maybe
                ``dataset_name``.
        """
        if self.format_only:
            return
        for sample in data_samples:
            measured = measure(*maps_of(sample), stretch=self.stretch)
            self.results.append((sample.get('dataset_name') or '', measured))

    def evaluate(self, size: int) -> dict[str, float]:
        """Return the metrics of the images of all processes.

        A UserError says that there is no image at all, or more than ``size``, the number of all data sets together.
        """
        if self.format_only:
            print_log('format_only=True: no metrics', 'current')
            return {}
        shown, own = len(self.results), -(-size // get_world_size())  # a distributed sampler may repeat one
        if shown > own:
            self.results.clear()
            what = f'{shown} images were evaluated, but this process has {own} of {size}'
            raise UserError(f"{what}; use MMEngine's DefaultSampler")
        return super().evaluate(size)

    def compute_metrics(self, results: list[tuple[str, Measured]]) -> dict[str, float]:
        """Return the metrics of each data set, and log them as a table; a UserError if there is no image."""
        sums: dict[str, Measured] = {}
        for name, measured in results:
            sums[name] = add(sums.get(name), measured)
        if not sums:
            raise UserError('no image was evaluated: the data set or the data loader is empty')
        self.kept = {f'saliency.{key}': np.stack([one[key] for _, one in results]) for key in next(iter(sums.values()))}
        self.kept['saliency.set'] = np.array([name for name, _ in results], np.str_)
        by_set = {name: dataset_metrics(measured) for name, measured in sums.items()}
        _log(by_set, {name: int(measured['images']) for name, measured in sums.items()})
        if len(by_set) == 1:
            return next(iter(by_set.values()))
        return {f'{name or "unnamed"}/{metric}': value for name, row in by_set.items() for metric, value in row.items()}


def maps_of(sample: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the prediction of a sample as (H, W) of uint8, and its annotation as (H, W) of bool.

    A UserError says that there are no probabilities or no annotation, or one of another size or with other labels.
    """
    name = sample.get('img_path', 'a sample')
    prediction = grey_map(sample['seg_logits']['data'], name)
    if 'gt_sem_seg' not in sample:
        text = f'{name} has no annotation'
        raise UserError(f'{text}; load the mask in the test pipeline, or set format_only=True of SaliencyMetric')
    truth = np.asarray(sample['gt_sem_seg']['data'].squeeze(0).cpu())
    if truth.shape != prediction.shape:
        what = f'{name}: the prediction has shape {prediction.shape}, the annotation {truth.shape}'
        raise UserError(f'{what}; in the test pipeline, load the mask after Resize')
    unknown = np.setdiff1d(truth, (0, 1))
    if unknown.size:
        what = f'{name}: label {unknown[0]} in the annotation, but a saliency mask has 0 and 1'
        raise UserError(f'{what}; load it with mmres2net.LoadSaliencyMask')
    return prediction, truth.astype(bool)


def _log(by_set: Mapping[str, Mapping[str, float]], images: Mapping[str, int]) -> None:
    names = list(next(iter(by_set.values())))
    rows = [[name or 'all', images[name], *row.values()] for name, row in by_set.items()]
    print_log(f'salient objects by data set:\n{class_table(["data set", "images", *names], rows)}', 'current')

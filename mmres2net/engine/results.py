"""The files that a run leaves: a table of its evaluations, plots, images with truth and prediction, and predictions."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image
from pycocotools.mask import encode

from mmres2net.drawing import make_sheet, resize_within
from mmres2net.engine import result_plots
from mmres2net.engine.draw import batch_images, draw_annotations, draw_sample
from mmres2net.engine.launcher import gather_results
from mmres2net.engine.result_plots import left_out_on_error
from mmres2net.evaluation.per_image import Record, collected, record_of
from mmres2net.files import atomic_path
from mmres2net.plots import NothingToDraw
from mmres2net.registry import HOOKS, METRICS

TABLE, ARRAYS, IMAGES = 'results.csv', 'evaluation/matches.npz', 'predictions'
# Annotations, and per-pixel scores: those of 19 classes at 1024 x 2048 take 160 MB an image.
DROPPED = ('gt_', 'ignored_', 'seg_logits', 'i_seg_logits', 'proposals')
TILE, BATCH_IMAGES, BATCHES = 640, 8, 4  # pixels of an image on a sheet; images from at most so many batches


@HOOKS.register_module()
class ResultsHook(Hook):
    """Write ``results.csv``, plots, and the best and worst images of each evaluation into the work dir.

    A later evaluation replaces the plots and images of the one before. What cannot be drawn is left out, and the log
    says why. ``default_hooks.results=None`` leaves the hook out.

    Args:
        images: Number of images that are drawn of an evaluation: one half the best, one half the worst by their own
            score, which is F1 of boxes, mean IoU, or the score of the right class.
        score_thr: Detections with a lower score are not drawn.
    """

    priority = 'LOW'

    def __init__(self, *, images: int = 8, score_thr: float = 0.3) -> None:
        self.score_thr = score_thr
        self.count = {'best': images - images // 2, 'worst': images // 2}
        self.rows: list[dict[str, Any]] = []
        self._row_began = 0  # the step
        self._records: list[Record | None] = []
        self._drawn: dict[str, list[tuple[tuple[float, str], np.ndarray]]] = {}
        self._batches: list[list[tuple[np.ndarray, list[str]]]] | None = []
        self._failed: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        folder = Path(runner.work_dir)
        if not is_main_process():
            return
        if runner.iter and (folder / TABLE).is_file():  # resumed
            with left_out_on_error(f'the beginning of {TABLE}'), (folder / TABLE).open(newline='') as file:
                self.rows = [dict(row) for row in csv.DictReader(file) if int(row['step']) <= runner.iter]
        self._row_began = int(self.rows[-1]['step']) if self.rows else 0
        with left_out_on_error('labels.png'):
            draw_annotations(folder, runner.train_dataloader.dataset)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._batches is None or not is_main_process():
            return
        batches, self._batches = self._batches, None
        with left_out_on_error('train_batch.png'):
            batches.append(batch_images(data_batch, runner.train_dataloader.dataset))
            images = [image for batch in batches for image in batch][:BATCH_IMAGES]
            path = Path(runner.work_dir) / 'train_batch.png'
            _save_sheet(path, [image for image, _ in images], [lines for _, lines in images], 4)
            self._batches = batches if len(images) < BATCH_IMAGES and len(batches) < BATCHES else None

    def after_train_epoch(self, runner: Runner) -> None:
        if is_main_process() and 'max_epochs' in (runner.cfg.get('train_cfg') or {}):
            self._add_row(runner, runner.epoch + 1, {})

    def after_train(self, runner: Runner) -> None:
        if is_main_process():
            self._draw_history(runner)

    def before_val(self, runner: Runner) -> None:
        self._records, self._drawn = [], {name: [] for name in self.count}

    before_test = before_val

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        if mode != 'train':
            self._collect(outputs or (), _meta(getattr(runner, f'{mode}_dataloader')))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if is_main_process():
            self._add_row(runner, runner.epoch, metrics or {})
            self._draw_history(runner)
        self._finish(runner, runner.val_loop, f'val, step {runner.iter}')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if is_main_process():
            with left_out_on_error(f'test_{TABLE}'):
                result_plots.write_rows(Path(runner.work_dir) / f'test_{TABLE}', [result_plots.numbers(metrics or {})])
        self._finish(runner, runner.test_loop, 'test')

    def _add_row(self, runner: Runner, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Add a row of means over the steps since the last one, or metrics to the row of this step; write the table."""
        with left_out_on_error(TABLE):
            if not self.rows or int(self.rows[-1]['step']) != runner.iter:
                since = max(runner.iter - self._row_began, 1)
                logged = {
                    k: v[-1] if k.endswith('lr') else v[-since:].mean()
                    for k, v in result_plots.history_of(runner).items()
                }
                self.rows.append({'epoch': epoch, 'step': runner.iter, **{k: float(v) for k, v in logged.items()}})
                self._row_began = runner.iter
            self.rows[-1].update(result_plots.numbers(metrics))
            result_plots.write_rows(Path(runner.work_dir) / TABLE, self.rows)

    def _draw_history(self, runner: Runner) -> None:
        with left_out_on_error('curves.png'):
            classes = _meta(runner.train_dataloader).get('classes') or ()
            result_plots.draw_history(Path(runner.work_dir) / 'curves.png', runner, self.rows, classes)

    def _collect(self, samples: Sequence[Any], meta: Mapping[str, Any]) -> None:
        """Keep a record of each image, and draw it if it is among the best or the worst so far."""
        total = sum(self.count.values())
        for sample in samples:
            record = None
            with left_out_on_error(ARRAYS, self._failed):
                record = record_of(sample, len(meta.get('classes') or ()))
            self._records.append(record)
            if record is None or math.isnan(record['score']) or not sample.get('img_path'):
                continue
            for name, sign in (('best', 1), ('worst', -1)):
                kept, rank = self._drawn[name], (-sign * record['score'], sample.img_path)
                if self.count[name] and (len(kept) < total or rank < kept[-1][0]):
                    with left_out_on_error(IMAGES, self._failed):
                        kept.append((rank, draw_sample(sample, meta, self.score_thr)))
                        kept.sort(key=lambda item: item[0])
                        del kept[total:]  # more than one half, as an image may be among both

    def _finish(self, runner: Runner, loop: Any, title: str) -> None:
        """Gather what the processes kept; the first one writes it."""
        records = gather_results(self._records, len(loop.dataloader.dataset))
        drawn = gather_results([self._drawn], get_world_size())
        self._records, self._drawn = [], {}
        if records is None or drawn is None:
            return
        folder, classes = Path(runner.work_dir), list(_meta(loop.dataloader).get('classes') or ())
        with left_out_on_error(IMAGES):
            self._write_images(folder / IMAGES, drawn)
        with left_out_on_error(ARRAYS):
            known = [one for one in records if one is not None]
            if not known or len(known) < len(records):
                raise NothingToDraw(f'{len(records) - len(known)} of {len(records)} images are not annotated')
            matches = next((one.matches for one in loop.evaluator.metrics if getattr(one, 'matches', None)), None)
            arrays = collected(known, classes, matches)
            for metric in loop.evaluator.metrics:
                arrays |= getattr(metric, 'kept', {})
            (folder / ARRAYS).parent.mkdir(exist_ok=True)
            with atomic_path(folder / ARRAYS) as draft, draft.open('wb') as file:
                np.savez_compressed(file, split=title, step=runner.iter, **arrays)
            result_plots.draw_evaluation(folder, arrays, title)

    def _write_images(self, folder: Path, gathered: Sequence[Mapping[str, Any]]) -> None:
        """Write the best and the worst images, each as a file and all of them on a sheet."""
        for old in folder.glob('*.png'):
            old.unlink()
        shown: dict[str, tuple[str, np.ndarray]] = {}  # by path, so that none is shown twice
        for name, count in self.count.items():
            items = {rank: image for part in gathered for rank, image in part[name] if rank[1] not in shown}
            for number, (score, path) in enumerate(sorted(items)[:count], 1):
                image = items[score, path]
                folder.mkdir(exist_ok=True)
                Image.fromarray(image).save(folder / f'{name}_{number}_{Path(path).stem}.png')
                shown[path] = (
                    f'{name} {number}: {Path(path).name}, score {abs(score):.2f}',
                    resize_within(image, 1, TILE),
                )
        if sum(self.count.values()):
            titles = [[title] for title, _ in shown.values()]
            _save_sheet(folder.with_suffix('.png'), [image for _, image in shown.values()], titles, 2)


def _save_sheet(path: Path, images: Sequence[np.ndarray], titles: Sequence[Sequence[str]], columns: int) -> None:
    if not images:
        raise NothingToDraw('there are no images')
    Image.fromarray(make_sheet(images, titles, columns=min(columns, len(images)))).save(path)


def _meta(loader: Any) -> Mapping[str, Any]:
    return getattr(loader.dataset, 'metainfo', None) or {}


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """Write the predictions of all images to a pickle file: a list of dicts, one for each image.

    Annotations and per-pixel scores are left out, instance masks are COCO run lengths, and label maps have the smallest
    type that holds them.

    Args:
        out_file_path: The file; its name ends in .pkl or .pickle.
    """

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Add the predictions of a batch."""
        self.results.extend(_compact(sample) for sample in data_samples)


def _compact(value: Any, name: str = '') -> Any:
    if isinstance(value, BaseDataElement):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: _compact(part, key) for key, part in value.items() if not str(key).startswith(DROPPED)}
    if isinstance(value, torch.Tensor):
        value = value.cpu()
        if name == 'masks':
            return [encode(np.asfortranarray(mask.astype(np.uint8))) for mask in value.numpy()]
        if name in ('sem_seg', 'data', 'pan_seg') and not value.is_floating_point() and value.numel():
            return value.to(torch.uint8 if value.min() >= 0 and value.max() < 256 else torch.int32)
    return value

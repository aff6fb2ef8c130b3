"""The files that a run leaves: a table of its evaluations, curves, images with truth and prediction, predictions."""

import csv
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image
from pycocotools.mask import encode

from mmres2net.drawing import class_color, draw_boxes, draw_label_map, draw_masks, legible, make_sheet, resize_within
from mmres2net.engine.launcher import gather_results
from mmres2net.errors import reason_of
from mmres2net.evaluation.per_image import Record, evaluated, record_of
from mmres2net.files import atomic_path, write_atomic
from mmres2net.plots import PALETTE, Line, draw_lines, save
from mmres2net.registry import HOOKS, METRICS
from mmres2net.text import overall

TABLE, ARRAYS, IMAGES = 'results.csv', 'evaluation/matches.npz', 'predictions'
TIMES = ('time', 'data_time', 'memory')
# Annotations, and per-pixel scores: those of 19 classes at 1024 x 2048 take 160 MB an image.
DROPPED = ('gt_', 'ignored_', 'seg_logits', 'i_seg_logits', 'proposals')
TITLES, TILE = {'gt': 'annotation', 'pred': 'prediction'}, 640  # pixels of an image on a sheet
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
    """Draw ``gt`` or ``pred`` over the image (H, W, 3) uint8 RGB; the class of an image is a line of text."""
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
    image: np.ndarray, instances: Any, classes: Sequence[str], colors: Sequence[tuple[int, int, int]], score_thr: float
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
    return legible(str(classes[label]), label) if label < len(classes) else f'class {label}'


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``rows`` as CSV, with a column for each name that any of them has."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, table.getvalue())


def _numbers(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    found = {}
    for name, value in (metrics or {}).items():
        with suppress(TypeError, ValueError, RuntimeError):  # text, or many values
            found[name] = float(value.item() if hasattr(value, 'item') else value)
    return found


def history_of(runner: Runner) -> dict[str, np.ndarray]:
    """Return what training logged at each step: losses, learning rates and others, by name."""
    logged = {name[6:]: one.data[0] for name, one in runner.message_hub.log_scalars.items() if name[:6] == 'train/'}
    return {name: np.asarray(values, float) for name, values in logged.items() if name not in TIMES and len(values)}


def draw_history(
    path: Path, step: int, history: Mapping[str, np.ndarray], rows: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> None:
    """Draw losses (means of a twentieth of the steps), the metrics over all classes, and the learning rate by step."""
    panels: dict[tuple[str, str, str], list[Line]] = {}

    def add(title: str, name: str, x: np.ndarray, y: np.ndarray) -> None:
        lines = panels.get((title, 'step', ''), [])
        if np.isfinite(y).any() and len(lines) < len(PALETTE):
            panels[title, 'step', ''] = [*lines, (name, PALETTE[len(lines)], x, y, None)]

    for name, values in history.items():
        window = max(len(values) // 20, 1)
        means = np.convolve(values, np.full(window, 1 / window), 'valid')
        if 'loss' in name:
            add('losses', name, np.arange(len(means)) + step - len(means) + 1, means)
    for name in overall(dict.fromkeys(key for row in rows for key in row if key not in history), classes):
        points = [(int(row['step']), float(row[name])) for row in rows if row.get(name) not in (None, '')]
        steps, found = np.array(points).T
        if name not in ('epoch', 'step', *TIMES):
            add('metrics', name, steps, np.where(found == -1, np.nan, found))  # -1: no object has the size
    if 'lr' in history:
        add('learning rate', 'lr', np.arange(len(history['lr'])) + step - len(history['lr']) + 1, history['lr'])
    if panels:
        save(path, lambda figure: draw_lines(figure, panels), width=max(4 * len(panels), 5))


@HOOKS.register_module()
class ResultsHook(Hook):
    """Write ``results.csv``, curves, and the best and worst images of each evaluation into the work dir.

    Of ``images`` that are drawn, one half are the best, the others the worst by their own score, which is F1 of boxes,
    mean IoU, or the score of the right class; detections under ``score_thr`` are not drawn. A later evaluation replaces
    the images of the one before. What cannot be drawn is left out, and the log says why.
    """

    priority = 'LOW'

    def __init__(self, *, images: int = 8, score_thr: float = 0.3) -> None:
        self.score_thr = score_thr
        self.count = {'best': images - images // 2, 'worst': images // 2}
        self.rows: list[dict[str, Any]] = []
        self._records: list[Record | None] = []
        self._drawn: dict[str, list[tuple[tuple[float, str], np.ndarray]]] = {}
        self._failed: set[str] = set()

    @contextmanager
    def _left_out_on_error(self, what: str) -> Iterator[None]:
        """Log what fails in the block, once for each `what`, and continue: a plot is not worth a run."""
        try:
            yield
        except Exception as error:
            if what not in self._failed:
                print_log(f'{what} is left out: {reason_of(error)}', 'current', logging.WARNING)
            self._failed.add(what)

    def before_train(self, runner: Runner) -> None:
        table = Path(runner.work_dir) / TABLE
        if runner.iter and is_main_process() and table.is_file():  # resumed
            with self._left_out_on_error(f'the beginning of {TABLE}'), table.open(newline='') as file:
                self.rows = [dict(row) for row in csv.DictReader(file) if int(row['step']) <= runner.iter]

    def after_train_epoch(self, runner: Runner) -> None:
        if 'max_epochs' in (runner.cfg.get('train_cfg') or {}):
            self._add_row(runner, runner.epoch + 1, {})

    def after_train(self, runner: Runner) -> None:
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
        self._add_row(runner, runner.epoch, metrics)
        self._draw_history(runner)
        self._finish(runner, runner.val_loop, f'val, step {runner.iter}')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if is_main_process():
            with self._left_out_on_error(f'test_{TABLE}'):
                write_rows(Path(runner.work_dir) / f'test_{TABLE}', [_numbers(metrics)])
        self._finish(runner, runner.test_loop, 'test')

    def _add_row(self, runner: Runner, epoch: int, metrics: Mapping[str, Any] | None) -> None:
        """Add a row of means over the steps since the last one, or metrics to the row of this step; write the table."""
        if not is_main_process():
            return
        with self._left_out_on_error(TABLE):
            before = int(self.rows[-1]['step']) if self.rows else 0
            if not self.rows or before != runner.iter:
                since = max(runner.iter - before, 1)
                logged = {k: v[-1] if k.endswith('lr') else v[-since:].mean() for k, v in history_of(runner).items()}
                self.rows.append({'epoch': epoch, 'step': runner.iter, **{k: float(v) for k, v in logged.items()}})
            self.rows[-1].update(_numbers(metrics))
            write_rows(Path(runner.work_dir) / TABLE, self.rows)

    def _draw_history(self, runner: Runner) -> None:
        if is_main_process():
            with self._left_out_on_error('curves.png'):
                path = Path(runner.work_dir) / 'curves.png'
                classes = _meta(runner.train_dataloader).get('classes') or ()
                draw_history(path, runner.iter, history_of(runner), self.rows, classes)

    def _collect(self, samples: Sequence[Any], meta: Mapping[str, Any]) -> None:
        """Keep a record of each image, and draw it if it is among the best or the worst so far."""
        total = sum(self.count.values())
        for sample in samples:
            record = None
            with self._left_out_on_error(ARRAYS):
                record = record_of(sample, len(meta.get('classes') or ()))
            self._records.append(record)
            if record is None or math.isnan(record['score']) or not sample.get('img_path'):
                continue
            for name, sign in (('best', 1), ('worst', -1)):
                kept, rank = self._drawn[name], (-sign * record['score'], sample.img_path)
                if self.count[name] and (len(kept) < total or rank < kept[-1][0]):
                    with self._left_out_on_error(IMAGES):
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
        with self._left_out_on_error(IMAGES):
            self._write_images(folder / IMAGES, drawn)
        with self._left_out_on_error(ARRAYS):
            known = [one for one in records if one is not None]
            if not known or len(known) < len(records):
                print_log(f'{ARRAYS} is left out: of {len(records)} images, {len(known)} are annotated', 'current')
                return
            arrays = evaluated(known, classes, loop.evaluator.metrics)
            (folder / ARRAYS).parent.mkdir(exist_ok=True)
            with atomic_path(folder / ARRAYS) as draft, draft.open('wb') as file:
                np.savez_compressed(file, split=title, step=runner.iter, **arrays)

    def _write_images(self, folder: Path, gathered: Sequence[Mapping[str, Any]]) -> None:
        """Write the best and the worst images, each as a file and all of them on a sheet."""
        for old in folder.glob('*.png'):
            old.unlink()
        shown: dict[str, tuple[list[str], np.ndarray]] = {}  # by path, so that none is shown twice
        for name, count in self.count.items():
            items = {rank: image for part in gathered for rank, image in part[name] if rank[1] not in shown}
            for number, (score, path) in enumerate(sorted(items)[:count], 1):
                image, title = items[score, path], f'{name} {number}: {Path(path).name}, score {abs(score):.2f}'
                folder.mkdir(exist_ok=True)
                Image.fromarray(image).save(folder / f'{name}_{number}_{Path(path).stem}.png')
                shown[path] = [title], resize_within(image, 1, TILE)
        if shown:
            titles, images = zip(*shown.values(), strict=True)
            Image.fromarray(make_sheet(images, titles, columns=min(2, len(images)))).save(folder.with_suffix('.png'))


def _meta(loader: Any) -> Mapping[str, Any]:
    return getattr(loader.dataset, 'metainfo', None) or {}


@METRICS.register_module()
class DumpPredictions(DumpResults):
    """Write the predictions of all images to the pickle ``out_file_path``: a list of dicts, one for each image.

    Annotations and per-pixel scores are left out, instance masks are COCO run lengths, and label maps have the smallest
    type that holds them.
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

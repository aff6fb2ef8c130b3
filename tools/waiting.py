#!/usr/bin/env python3
"""Measure what users wait for: help, the code of a verb, the first step, a training loader, metrics, predictions.

Run it as ``python -m tools.waiting`` on a quiet machine; ``python -m benchmarks page`` writes the table.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import torch
from mmengine.dataset import Compose
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.case import Case
from benchmarks.runner import Limits, check_load, machine
from mmres2net.cli import VERBS
from mmres2net.data.shapes import make_shapes
from mmres2net.engine.build import scope_of
from mmres2net.engine.config import load_config
from mmres2net.engine.source import make_source
from mmres2net.evaluation import COCOMetric, IoUMetric
from mmres2net.files import write_atomic
from mmres2net.version import __version__
from tests.evaluation.samples import coco_detections, coco_truth
from tests.evaluation.test_coco import samples_of

DETECTOR, CLASSIFIER = 'demo/faster_rcnn_r2n50', 'imagenet/res2net50_26w_4s'
LOADED = {'faster_rcnn_r2n50': (640, 480), DETECTOR: (160, 160), CLASSIFIER: (500, 375)}
IMAGES, EVALUATED = 24, 2000
RESULT = Path(__file__).parents[1] / 'benchmarks/results/waiting.json'
Row = tuple[str, float, str]  # what, how much, unit


def lines(*args: str, until: str = '', folder: Path | None = None) -> list[float]:
    """Return after how many seconds ``python ARGS`` printed each line, up to one with ``until``, and ended."""
    begin, seconds = time.monotonic(), list[float]()
    command = [sys.executable, '-u', *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder) as process:
        for line in process.stdout or ():
            seconds.append(time.monotonic() - begin)
            if until and until.encode() in line:
                process.kill()
    return [*seconds, time.monotonic() - begin]


def photos(folder: Path, size: tuple[int, int], count: int = IMAGES) -> list[Path]:
    """Write smooth images of noise, which take as many bytes as photographs."""
    folder.mkdir(parents=True)
    files = [folder / f'{folder.parent.name}{folder.name}{i}.jpg' for i in range(count)]
    for file in files:
        Image.effect_noise((size[0] // 4, size[1] // 4), 100).resize(size).convert('RGB').save(file, quality=90)
    return files


def started(folder: Path) -> Iterator[Row]:
    """Yield the seconds to the help of each verb and to its code, and from a command to its first step."""
    for verb, (_, place) in VERBS.items():
        yield f'{verb}: --help', lines('-m', 'mmres2net', verb, '--help')[-1], 's'
        yield f'{verb}: its code', lines('-c', f'import mmres2net.{place.partition(":")[0]}')[-1], 's'
    for part in ('train/a', 'train/b', 'val/a', 'val/b'):
        photos(folder / 'own' / part, (160, 120), 5)
    make_shapes(folder / 'data/shapes')
    own = ('--data', 'own', '--from-scratch', '--cfg-options', 'train_dataloader.batch_size=4')
    for flags in ((DETECTOR,), (CLASSIFIER, *own)):
        times = lines('-m', 'mmres2net', 'train', *flags, until='step 1/', folder=folder)
        yield f'train {" ".join(flags[:3])}: first step', times[-2], 's'


def loaded(folder: Path) -> Iterator[Row]:
    """Yield how many training images a second a worker of a config reads and prepares."""
    for name, size in LOADED.items():
        cfg, files = load_config(name), photos(folder / name, size)
        with scope_of(cfg):
            load = Compose(cfg.train_dataloader.dataset.pipeline)
            begin = time.monotonic()
            for file in files:
                load({'img_path': str(file), 'img_id': 0, 'instances': [], 'gt_label': 0})
        yield f'loader of {name}: a worker', IMAGES / (time.monotonic() - begin), 'images/s'


def evaluated(folder: Path) -> Iterator[Row]:
    """Yield the seconds that metrics take for thousands of generated images."""
    truth, file = coco_truth(EVALUATED, 20, 0), folder / 'truth.json'
    found = coco_detections(truth, 1)
    file.write_text(json.dumps(truth))
    samples = [sample.to_dict() for sample in samples_of(truth, found)]
    labels = {'data': torch.randint(20, (1, 375, 500))}
    maps = [{'pred_sem_seg': labels, 'gt_sem_seg': labels}] * EVALUATED
    for metric, shown in ((COCOMetric(str(file)), samples), (IoUMetric(), maps)):
        metric.dataset_meta = {'classes': [one['name'] for one in truth['categories']]}
        begin = time.monotonic()
        metric.process(None, shown)
        metric.compute_metrics(metric.results)
        yield f'{type(metric).__name__}, {EVALUATED:,} images', time.monotonic() - begin, 's'
    with contextlib.redirect_stdout(io.StringIO()):
        api, begin = COCO(str(file)), time.monotonic()
        reference = COCOeval(api, api.loadRes(found), 'bbox')
        reference.evaluate(), reference.accumulate(), reference.summarize()
    yield f'pycocotools, {EVALUATED:,} images', time.monotonic() - begin, 's'


def predicted(folder: Path) -> Iterator[Row]:
    """Yield the images a second that predict reads, predicts, draws and writes, once it has started."""
    for name, size in ((CLASSIFIER, (500, 375)), (DETECTOR, (160, 160))):
        place, file = folder / 'photos' / name, folder / 'model.pth'
        photos(place, size)
        torch.save({'state_dict': make_source(load_config(name), None, name, '').model.state_dict()}, file)
        for batch in (1, 8):
            flags = (str(file), str(place), '--out', str(folder / 'out'), '--config', name, '--batch', str(batch))
            times = lines('-m', 'mmres2net', 'predict', *flags)
            yield f'predict {name} --batch {batch}', (IMAGES - batch) / (times[-2] - times[0]), 'images/s'


def main() -> None:
    """Measure all, and write the result for ``python -m benchmarks page``."""
    rows, load = list[Row](), check_load('--allow-load' in sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        for part in (started, loaded, evaluated, predicted):
            for row in part(Path(folder)):
                print('{}: {:.2f} {}'.format(*row), flush=True)
                rows.append(row)
    case = Case('waiting', (0, 0))
    result = {
        'version': __version__, 'date': datetime.now(timezone.utc).date().isoformat(), 'limits': asdict(Limits()),
        'case': {**asdict(case), 'title': 'what users wait for'}, 'command': 'python -m tools.waiting',
        'load': [load, os.getloadavg()[0]], 'allow_load': '--allow-load' in sys.argv, 'machine': machine(case),
        'contenders': [], 'waiting': rows,
    }  # fmt: skip
    write_atomic(RESULT, json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

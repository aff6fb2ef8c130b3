"""How long COCO's evaluation of boxes takes with each evaluator, on a result of the size of val2017.

Annotations and detections are generated: 80 classes of which few are common, about seven objects an image as in val2017
(36,781 in 5,000 images), and for each object some near detections, the rest strays.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmres2net.bench.measure import MeasurementError, in_turns, machine, peak_mib
from mmres2net.bench.page import table
from mmres2net.errors import UserError
from mmres2net.evaluation.coco_protocol import PACKAGES, evaluate

SUMMARY = "time and memory of COCO's box evaluation, by faster-coco-eval and by pycocotools"
CLASSES, SIDE, OBJECTS = 80, (640, 480), 7.36
CHECKED = 50  # images of the check before the timing


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument('--images', type=int, default=5000, help='number of images (default: %(default)s)')
    parser.add_argument('--detections', type=int, default=100, help='detections an image (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each evaluator (default: %(default)s)')


def generate(images: int, detections: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a COCO annotation dict and ``images`` x ``detections`` boxes found."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        count = int(rng.poisson(OBJECTS))
        boxes, kinds = _boxes(rng, count), _kinds(rng, count)
        crowds = rng.random(count) < 0.01
        first = len(annotations) + 1
        annotations += [
            {'id': first + i, 'image_id': image, 'category_id': int(kinds[i]), 'bbox': box, 'iscrowd': int(crowds[i]),
             'area': box[2] * box[3] * 0.6} for i, box in enumerate(boxes.round(2).tolist())
        ]  # fmt: skip
        found += _found(rng, image, boxes, kinds, detections)
    return {
        'images': [{'id': i, 'width': SIDE[0], 'height': SIDE[1]} for i in range(1, images + 1)],
        'categories': [{'id': k, 'name': f'class {k}'} for k in range(1, CLASSES + 1)],
        'annotations': annotations,
    }, found


def _kinds(rng: np.random.Generator, count: int) -> np.ndarray:
    """Classes, the k-th as common as 1 / k."""
    weights = 1 / np.arange(1, CLASSES + 1)
    return rng.choice(CLASSES, count, p=weights / weights.sum()) + 1


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (x, y, width, height), as often small, medium and large as COCO's objects."""
    size = np.exp(rng.normal(4, 1.2, (count, 1)) + rng.normal(0, 0.3, (count, 2))).clip(4, SIDE)
    return np.hstack([rng.random((count, 2)) * (np.array(SIDE) - size), size])


def _found(
    rng: np.random.Generator, image: int, boxes: np.ndarray, kinds: np.ndarray, count: int
) -> list[dict[str, Any]]:
    near = rng.integers(0, len(boxes), min(3 * len(boxes), count)) if len(boxes) else np.empty(0, int)
    strays = count - len(near)
    around = boxes[near] + rng.normal(0, 0.1, (len(near), 4)) * np.tile(boxes[near, 2:], 2)
    around[:, 2:] = around[:, 2:].clip(1)
    right = np.where(rng.random(len(near)) < 0.8, kinds[near], _kinds(rng, len(near)))
    places = np.vstack([around, _boxes(rng, strays)]).tolist()
    labels = np.hstack([right, _kinds(rng, strays)]).tolist()
    scores = np.hstack([rng.beta(3, 2, len(near)), rng.beta(1, 6, strays)]).astype(np.float32).tolist()
    return [
        {'image_id': image, 'category_id': label, 'bbox': box, 'score': score}
        for label, box, score in zip(labels, places, scores, strict=True)
    ]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check that the evaluators agree, time them in turns, and return the figures with the ``text`` of the section.

    Raises:
        UserError: A number out of range.
        MeasurementError: The evaluators disagree.
    """
    if min(args.images, args.detections, args.repeats) < 1:
        raise UserError('--images, --detections and --repeats: choose 1 or more of each')
    place = machine([*(package.replace('_', '-') for package in PACKAGES.values()), 'numpy'])
    few = generate(min(CHECKED, args.images), args.detections)
    _agree([evaluate(*few, 'bbox', evaluator=name).overall for name in PACKAGES])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / 'data.pkl'
        truth, found = generate(args.images, args.detections)
        data.write_bytes(pickle.dumps((truth, found)))
        objects = len(truth['annotations'])
        del truth, found  # the runs want the memory
        runs = in_turns({name: ['-m', __name__, name, str(data)] for name in PACKAGES}, args.repeats)
    _agree([one['figures'] for results in runs.values() for one in results])
    results = {
        'images': args.images, 'detections': args.detections, 'objects': objects, 'runs': runs, 'machine': place
    }  # fmt: skip
    label = 'CPU seconds / those of pycocotools'
    return {**results, 'panels': [_panel(runs)], 'label': label, 'text': _text(args, results)}


def _panel(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the bars of the picture."""
    busy = {name: [one['cpu_seconds'] for one in each] for name, each in runs.items()}
    bars = []
    for name, seconds in busy.items():
        in_turn = [one / other for one, other in zip(seconds, busy['pycocotools'], strict=True)]
        ratio = statistics.median(seconds) / statistics.median(busy['pycocotools'])
        named = PACKAGES[name].replace('_', '-')
        bars.append({'name': named, 'ratio': ratio, 'low': min(in_turn), 'high': max(in_turn), 'ours': False})
    return {'title': 'COCO evaluation of boxes', 'bars': bars}


def _agree(figures: list[dict[str, float]]) -> None:
    worst = max(abs(one[name] - figures[0][name]) for one in figures for name in one)
    if worst > 1e-12:
        raise MeasurementError(f'the evaluators disagree by {worst}, so their times do not compare: {figures}')


def _text(args: argparse.Namespace, results: dict[str, Any]) -> str:
    runs = results['runs']
    busy = {name: statistics.median(one['cpu_seconds'] for one in each) for name, each in runs.items()}
    rows = []
    for name, each in runs.items():
        seconds = [one['seconds'] for one in each]
        held = statistics.median(one['peak_mib'] - one['data_mib'] for one in each)
        rows.append([
            PACKAGES[name].replace('_', '-'), f'{busy[name]:.1f}', f'{busy["pycocotools"] / busy[name]:.1f}',
            f'{statistics.median(seconds):.1f}', f'{min(seconds):.1f} to {max(seconds):.1f}', f'{held:,.0f}',
        ])  # fmt: skip
    header = ['evaluator', 'CPU seconds', 'times as fast', 'wall seconds', 'all runs', 'memory beside the data, MiB']
    first = next(iter(runs.values()))[0]
    count = f'Medians of {args.repeats} runs' if args.repeats > 1 else 'One run of each'
    threads = os.environ.get('OMP_NUM_THREADS', 'not set')
    command = f'evaluation --images {args.images} --detections {args.detections} --repeats {args.repeats}'
    return f"""## COCO evaluation

{args.images:,} images with {results['objects']:,} objects of {CLASSES} classes and {args.detections} detections each,
all generated; from annotations and detections in memory ({first['data_mib']:,.0f} MiB with Python and imports) to the
twelve figures. {count}; the ratio is of CPU seconds, which a busy machine disturbs least. All runs
gave the same figures to 1e-12 (AP {first['figures']['mAP']:.4f}).

{table(header, rows)}

- Command: `tools/benchmark.py {command}`
- Machine: {results['machine']}; OMP_NUM_THREADS {threads}"""


def main(name: str, data: str) -> None:
    """Evaluate once, and print what it took as one JSON object."""
    with open(data, 'rb') as file:
        truth, found = pickle.load(file)
    before = peak_mib()
    start, busy = time.perf_counter(), time.process_time()
    figures = evaluate(truth, found, 'bbox', evaluator=name).overall
    took = {'seconds': time.perf_counter() - start, 'cpu_seconds': time.process_time() - busy}
    print(json.dumps({**took, 'data_mib': before, 'peak_mib': peak_mib(), 'figures': figures}))


if __name__ == '__main__':
    main(*sys.argv[1:])

"""Predictions of many images by many processes: shards write parts, and ``mmres2net merge`` makes one file of them.

Shard I of N has the images I, I + N, ... of the sorted inputs. A part is a file of up to 1,000 images, a JSON object on
each line, that is there completely or not at all: a shard that is started again continues with the next part.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmres2net.errors import RunError, UserError, reason_of
from mmres2net.files import atomic_path, writable_dir, write_atomic
from mmres2net.flags import parse
from mmres2net.predict.inputs import Skipped
from mmres2net.predict.results import CocoIds, Prediction, Results, describe, label_map, saliency_map
from mmres2net.predict.runtimes import ExportMetadata, parse_metadata
from mmres2net.text import join_some

PLAN, PARTS, FAILED, LINES = 'plan.json', 'parts', 'failed.txt', 'predictions.jsonl'
SIZE = 1000  # images of a part
ARRAYS = ('boxes', 'scores', 'labels')
# What loads a model for images, and returns what predicts shards.
Start = Callable[[argparse.Namespace, Sequence[Path]], Callable[[tuple[int, int]], int]]
Predict = Callable[[Sequence[Path], Skipped], Iterator[tuple[Any, Prediction]]]  # of images, each as a Frame


def part_path(folder: Path, shard: int, part: int) -> Path:
    """Return the file of a part; both numbers begin at 0."""
    return folder / PARTS / f'{shard:05d}-{part:06d}.jsonl'


def predict_shard(
    args: argparse.Namespace, which: tuple[int, int], paths: Sequence[Path], metadata: ExportMetadata, predict: Predict
) -> int:
    """Write the parts of a shard that are not there yet; return 1 if images were broken. A UserError: another plan."""
    skipped, (shard, count), out = Skipped(), which, Path(args.out).expanduser()
    writable_dir(out / PARTS, '--out')
    names = hashlib.sha256()
    for path in paths:
        names.update(f'{path}\n'.encode())
    settings = {name: getattr(args, name) for name in ('model', 'config', 'score', 'ann', 'amp', 'cfg_options')}
    facts = {'shards': count, 'images': len(paths), 'names': names.hexdigest(), 'metadata': metadata.to_json()}
    plan = json.dumps({**facts, **settings}, default=str)
    if not (out / PLAN).exists():
        write_atomic(out / PLAN, plan)
    if (out / PLAN).read_text() != plan:
        raise UserError(f'--out {out} has parts of other images, of another model or of other settings: name a new one')
    mine = paths[shard::count]
    for number, start in enumerate(range(0, len(mine), SIZE)):
        target = part_path(out, shard, number)
        if not target.exists():
            lines = _lines(mine[start : start + SIZE], metadata, predict, skipped, out)
            write_atomic(target, ''.join(f'{json.dumps(line)}\n' for line in lines))
        print(f'shard {shard} of {count}: {min(start + SIZE, len(mine))} of {len(mine)} images', file=sys.stderr)
    return 1 if skipped else 0


class Worker:
    """Loads a model, then predicts shards of one part each, for Ray."""

    def __init__(self, folder: str, start: Start, args: argparse.Namespace, paths: Sequence[Path], count: int) -> None:
        os.chdir(folder)  # names of files may be relative
        self.predict, self.count = start(args, paths), count

    def __call__(self, row: dict[str, Any]) -> dict[str, int]:
        return {'status': self.predict((row['id'], self.count))}


def predict_by_ray(args: argparse.Namespace, paths: Sequence[Path], start: Start) -> int:
    """Predict by workers of a Ray cluster, which replaces killed ones; return 1 if images were broken, else 0."""
    try:
        import ray.data
    except ImportError as error:
        raise UserError("--ray needs Ray: pip install 'mmres2net[ray]'") from error
    count, gpus = -(-len(paths) // SIZE), int(str(args.device).startswith('cuda'))
    try:
        ray.init(ignore_reinit_error=True)
        done = ray.data.range(count, override_num_blocks=count).map(
            Worker, fn_constructor_args=(os.getcwd(), start, args, list(paths), count), concurrency=args.ray,
            num_cpus=args.threads or 1, num_gpus=gpus,
        )  # fmt: skip
        return int(done.max('status'))
    except ConnectionError as error:
        raise UserError(f'--ray: {reason_of(error)}') from error
    except ray.exceptions.RayError as error:
        raise RunError(f'a worker of Ray failed: {str(error).strip().splitlines()[-1]}') from error


def _lines(
    paths: Sequence[Path], metadata: ExportMetadata, predict: Predict, skipped: Skipped, out: Path
) -> Iterator[dict[str, Any]]:
    found: dict[Path, dict[str, Any]] = {}
    for (path, _, image), prediction in predict(paths, skipped):
        found[path] = {'size': image.shape[:2]}
        if 'boxes' in prediction:
            found[path] |= {key: prediction[key].tolist() for key in ARRAYS}
            found[path] |= {'masks': prediction['masks']} if 'masks' in prediction else {}
            continue
        found[path] |= describe(prediction, metadata)
        for key, draw in (('classes', lambda value: label_map(value, metadata)), ('saliency', saliency_map)):
            if metadata.task == 'segmentation' and key in prediction:
                place = out / key / f'{path.absolute().relative_to("/")}.png'
                place.parent.mkdir(parents=True, exist_ok=True)
                draw(prediction[key]).save(place)
    for path in paths:
        yield {'image': str(path), **(found[path] if path in found else {'error': skipped[path]})}


def main(argv: Sequence[str] | None = None) -> int:
    """Merge the parts in a folder into one file; return 1 if images were broken. A UserError: parts are missing."""
    folder = Path(parse('merge', argv).folder).expanduser()
    if not (folder / PLAN).is_file():
        raise UserError(f'{folder} is no --out of mmres2net predict --shard or --ray: it has no {PLAN}')
    try:
        plan = json.loads((folder / PLAN).read_text())
        total, count, metadata = plan['images'], plan['shards'], parse_metadata(plan['metadata'], folder / PLAN)
        sizes = [len(range(i, total, count)) for i in range(count)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f'{folder} is no --out of mmres2net predict --shard: {reason_of(error)}') from error
    parts = [[part_path(folder, i, k) for k in range(-(-size // SIZE))] for i, size in enumerate(sizes)]
    missing = [i for i, row in enumerate(parts) for path in row if not path.is_file()]
    if missing:
        again = join_some([f'--shard {i}/{count}' for i in dict.fromkeys(missing)])
        raise UserError(f'{len(missing)} of {sum(map(len, parts))} parts are missing: run {again} again')
    ids = CocoIds(plan['ann'], metadata.classes) if plan['ann'] else None
    names = hashlib.sha256()
    failed: list[str] = []
    rows = [chain.from_iterable(map(_read, row)) for row in parts]
    with Results(folder, [], metadata, ids) as results, atomic_path(folder / LINES) as draft, draft.open('w') as file:
        for k in range(total):
            line = next(rows[k % count], None)
            if line is None:
                raise UserError(f'{folder / PARTS}: a part of shard {k % count} is cut: delete it, run the shard again')
            names.update(f'{line["image"]}\n'.encode())
            if 'error' in line:
                failed.append(f'{line["image"]}\t{line["error"]}\n')
                continue
            results.write(Path(line['image']), None, line['size'], line, line)
            if metadata.task not in ('detection', 'classification'):  # which have a file of their own
                file.write(f'{json.dumps(line)}\n')
        if any(True for row in rows for _ in row) or names.hexdigest() != plan['names']:
            raise UserError(f'{folder / PARTS} has parts of other images: delete them and run all shards again')
    if not (folder / LINES).stat().st_size:
        (folder / LINES).unlink()
    write_atomic(folder / FAILED, ''.join(failed))
    print(f'{total - len(failed)} images, {len(failed)} broken ones in {folder / FAILED}')
    return 1 if failed else 0


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for text in file:
            try:
                line = json.loads(text)
                line |= {key: np.array(line[key]) for key in ARRAYS if key in line}
                yield {**line, 'image': line['image'], 'size': tuple(line['size']) if 'error' not in line else ()}
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f'{path} is damaged: delete it and run its shard again') from error

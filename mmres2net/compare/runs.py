"""The runs of a comparison: named on the command line, tested where they were not, and checked to be comparable."""

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.visualization import Visualizer

from mmres2net.compare.metrics import KINDS, Arrays, task_of
from mmres2net.compare.result import Run
from mmres2net.engine import test
from mmres2net.engine.build import class_of
from mmres2net.engine.config import configs_in
from mmres2net.engine.provenance import is_made_from, made_from, read_provenance
from mmres2net.engine.results import ARRAYS
from mmres2net.engine.resume import checkpoints_in
from mmres2net.engine.settings import value_at
from mmres2net.errors import UserError
from mmres2net.flags import UNSAFE, parse
from mmres2net.predict.checkpoint import task_of_model
from mmres2net.text import join_some
from mmres2net.weights.reading import read_checkpoint

KEPT = 'compared'  # folder in a work dir of training, for the test of its last checkpoint
FORMS = 'A RUN is the work dir of a training or a test, or CONFIG:CHECKPOINT; NAME=RUN names it, NAME=RUN,RUN is seeds'
FEW = 50  # images; with fewer the intervals are too narrow
# What has to be equal in all runs, apart from names of images, and what is wrong if it is not.
TRUTH = [f'{kind}.{name}' for kind in KINDS for name in ('object_image', 'object_label', 'ignored')]
EQUAL = {'voc.objects': 'annotations', 'saliency.set': 'data sets', 'voc.mode': 'metrics', 'voc.iou_thr': 'metrics'}


class Source(NamedTuple):
    """What a RUN means: its config, its checkpoint, and the work dir of its test."""

    config: str
    checkpoint: str
    folder: Path


class Evaluated(NamedTuple):
    """A run, what its evaluation kept, and its config."""

    run: Run
    arrays: Arrays
    cfg: Config


def read_sides(texts: Sequence[str]) -> dict[str, list[Source]]:
    """Return the runs of each side by name; a UserError for fewer than two sides, equal names, or a wrong run."""
    sides: dict[str, list[Source]] = {}
    for text in texts:
        name, runs = ('', text) if '=' not in text or os.path.exists(text) else text.split('=', 1)
        found = [source_of(part.strip()) for part in ([runs] if os.path.exists(runs) else runs.split(','))]
        own = found[0].folder.parent if found[0].folder.name == KEPT else found[0].folder
        name = name or os.path.basename(os.path.abspath(own))
        if name in sides:
            raise UserError(f'two sides have the name {name!r}: name them, such as A={runs}. {FORMS}')
        sides[name] = found
    if len(sides) < 2:
        raise UserError(f'a comparison needs two sides or more, got {join_some(texts)}. {FORMS}')
    return sides


def source_of(text: str) -> Source:
    """Return what a RUN means. A UserError says that it means nothing, or has no checkpoint or not one config."""
    folder = Path(text).expanduser()
    if text and os.path.isdir(folder):  # False for a name that is too long
        configs = configs_in(folder)
        if len(configs) != 1:
            raise UserError(f'{text}: a work dir has one config, this folder has {len(configs)}. {FORMS}')
        trained = checkpoints_in(folder)
        if trained:
            return Source(str(configs[0]), str(trained[0]), folder / KEPT)
        if checkpoint := read_provenance(folder).get('checkpoint'):
            return Source(str(configs[0]), str(checkpoint), folder)
        raise UserError(f'{text}: no checkpoint (epoch_N.pth, iter_N.pth), and no test of one was kept. {FORMS}')
    config, checkpoint = [*re.split(r'(?<!:):(?!:)', text, maxsplit=1), ''][:2]
    if not config or not checkpoint:
        raise UserError(f'RUN {text!r}: no such folder. {FORMS}')
    name = f'{Path(config).stem.split("::")[-1]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'
    return Source(config, checkpoint, Path('work_dirs') / KEPT / name)


def evaluate(sides: dict[str, list[Source]], data: str | None, *, unsafe: bool) -> dict[str, list[Evaluated]]:
    """Return the runs of all sides with what their tests found, see :func:`_evaluate`.

    Before the first test a UserError says that a config, a checkpoint or the data have an error, or tasks differ.
    """
    more = [*(['--data', data] if data else []), *([UNSAFE] if unsafe else [])]
    prepared, tasks = dict[Source, tuple[list[str], Config, str]](), dict[str, str]()
    for name, source in [(name, source) for name, runs in sides.items() for source in runs]:
        argv = [source.config, source.checkpoint, '--work-dir', str(source.folder), '--draw', '0', *more]
        cfg, _, checkpoint = test.prepare_testing(parse('test', [*argv, '--skip-data-check']))
        prepared[source] = argv, cfg, checkpoint
        task = task_of_model(class_of(cfg, MODELS, value_at(cfg, 'model.type')))
        tasks |= {task: f'{name} ({source.config})'} if task else {}
    if len(tasks) > 1:
        (task, first), (other, second), *_ = tasks.items()
        raise UserError(f'{first} and {second} are of different tasks: {task} and {other}')
    return {name: [_evaluate(one, *prepared[one], unsafe=unsafe) for one in runs] for name, runs in sides.items()}


def _evaluate(source: Source, argv: list[str], cfg: Config, checkpoint: str, *, unsafe: bool) -> Evaluated:
    """Return a run with what its test found in each image, tested anew where something has changed."""
    expected, file = made_from(cfg, checkpoint), source.folder / ARRAYS
    if not file.is_file() or not is_made_from(source.folder, expected):
        file.unlink(missing_ok=True)
        for kind in [Visualizer, *Visualizer.__subclasses__()]:  # kept by name, they would log into an earlier work dir
            kind._instance_dict.clear()
        test.main(argv)
    if not file.is_file():
        raise UserError(f'{source.config}: the test kept nothing of its images; the log in {source.folder} says why')
    with np.load(file, allow_pickle=False) as content:
        arrays = dict(content)
    meta = read_checkpoint(checkpoint, allow_pickle=unsafe).get('meta') or {}
    facts = hashlib.sha256('\n'.join(relative(arrays['images'].tolist())).encode())
    facts.update(arrays['truth_hash'].tobytes() + '\n'.join(arrays['classes'].tolist()).encode())
    seed = meta.get('seed') if isinstance(meta.get('seed'), int) else None
    run = Run(
        folder=str(source.folder.parent if source.folder.name == KEPT else source.folder), config=cfg.pretty_text,
        config_file=Path(source.config).name, checkpoint=str(expected['checkpoint']), sha256=str(expected['sha256']),
        seed=seed, versions=expected['versions'], data_sha256=facts.hexdigest(), arrays=str(file),
        command=shlex.join(['mmres2net', 'test', *argv]),
    )  # fmt: skip
    return Evaluated(run, arrays, cfg)


def relative(names: Sequence[str]) -> list[str]:
    """Return paths without the folders that all of them share, which differ from machine to machine."""
    parts = [name.replace('\\', '/') for name in names]
    shared = os.path.commonpath([os.path.dirname(part) or '.' for part in parts]) if parts else ''
    return [part.removeprefix(shared).lstrip('/') for part in parts]


def check_comparable(sides: dict[str, list[Evaluated]]) -> list[str]:
    """Return what makes the comparison doubtful; a UserError if the runs are not of one task on the same images."""
    (first, one), *others = [(name, run) for name, runs in sides.items() for run in runs]
    for name, other in others:
        _check_pair(f'{first} ({one.run.folder})', one.arrays, f'{name} ({other.run.folder})', other.arrays)
    images = len(one.arrays['images'])
    if images < 2:
        raise UserError(f'the data have {images} image: a comparison needs two or more, better {FEW}')
    banners = [f'Only {images} images: the intervals are too narrow.'] if images < FEW else []
    seen: dict[str, str] = {}
    for name, runs in sides.items():
        hashes = [run.run.sha256 for run in runs]
        if len(set(hashes)) < len(hashes):
            raise UserError(f'{name}: a checkpoint is named twice, which is no second seed')
        models = {str(run.cfg.get('model')) for run in runs}
        if len(models) > 1:
            raise UserError(f'{name}: its runs have different models, so they are no seeds of one config')
        seeds = [run.run.seed for run in runs]
        if len(set(seeds)) < len(seeds):
            banners.append(f'Runs of {name} have the same seed ({join_some(seeds)}): they are not independent.')
        banners += [f'{name} and {seen[digest]} are the same checkpoint.' for digest in hashes if digest in seen]
        seen |= dict.fromkeys(hashes, name)
    if len({len(runs) > 1 for runs in sides.values()}) > 1:
        banners.append('One side has a single seed: this compares checkpoints, not recipes.')
    return banners


def _check_pair(name: str, one: Arrays, other_name: str, other: Arrays) -> None:
    """Check two runs; a UserError names the first thing that differs."""
    both, tasks = f'{name} and {other_name}', (task_of(one), task_of(other))
    if tasks[0] != tasks[1]:
        raise UserError(f'{both} are of different tasks: {tasks[0]} and {tasks[1]}')
    classes = [arrays['classes'].tolist() for arrays in (one, other)]
    if classes[0] != classes[1]:
        odd = [a for a in classes[0] if a not in classes[1]] + [b for b in classes[1] if b not in classes[0]]
        raise UserError(f'{both} have different classes: {join_some(odd) if odd else "the same in another order"}')
    images = [relative(arrays['images'].tolist()) for arrays in (one, other)]
    if images[0] != images[1]:
        odd = sorted(set(images[0]) ^ set(images[1])) or ['the same in another order']
        raise UserError(
            f'{both} were tested on different images, {len(images[0])} and {len(images[1])}: {join_some(odd)}; test '
            'both on the same data with --data PATH'
        )
    new = np.flatnonzero(one['truth_hash'] != other['truth_hash'])
    if len(new):
        raise UserError(f'{both}: {len(new)} images are annotated differently: {join_some(np.array(images[0])[new])}')
    kinds = [{key.partition('.')[0] for key in arrays if '.' in key} for arrays in (one, other)]
    if kinds[0] != kinds[1]:
        raise UserError(f'{both} were tested by different metrics: {sorted(kinds[0])} and {sorted(kinds[1])}')
    for key, what in {**dict.fromkeys(TRUTH, 'annotations'), **EQUAL}.items():
        if key in one and not np.array_equal(one[key], other[key]):
            raise UserError(f'{both} were tested with different {what}')

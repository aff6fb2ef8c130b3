"""The check in front of a run: what would fail late, or spoil the result without a word, fails now.

The OpenMMLab libraries leave out unknown classes without a word, number classes in the annotation file's order whatever
order the config has, draw batches from an empty set forever and read half of a truncated image as gray.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.data.check.job import ERRORS, NOTES, Report, check_splits, verdict
from mmres2net.data.formats.base import Finding, Split
from mmres2net.data.formats.read import classes_of, dataset_class, read_splits
from mmres2net.data.layout import datasets_of, needed_paths, walk
from mmres2net.errors import UserError
from mmres2net.files import write_atomic
from mmres2net.text import join_some
from mmres2net.version import __version__

DECODED = 400  # images of each split that are decoded before a run; of the others headers and ends are read
SHOWN = 5  # findings of a kind in the error
MISFITS = ('classes do not fit', 'broken annotation file')
LEAST = 2000  # images: that a smaller set has passed is not remembered
FOLDER = 'mmres2net/data_checks'  # of what has passed, in the user's cache
# Heads that classify the classes of the data set, by their key in the model. Others have classes of their own: regions
# or none, stuff, boundaries, identities.
CLASS_HEADS = {
    'bbox_head', 'mask_head', 'mask_iou_head', 'glbctx_head', 'point_head', 'query_head', 'segm_head', 'decode_head',
    'auxiliary_head', 'kernel_generate_head', 'kernel_update_head', 'head',
}  # fmt: skip
OTHER_CLASSES = {'STDCHead', 'GroundingDINOHead'}  # boundaries; words of a text
# Data sets whose list of classes is not what the heads count: identities of tracks, things and stuff in one list.
OTHER_LABELS = {'BaseVideoDataset', 'ReIDDataset', 'CocoPanopticDataset'}
# Modules that pool an image to one pixel and normalize it over the batch.
POOLING = {
    'ASPPHead', 'DepthwiseSeparableASPPHead', 'PSPHead', 'UPerHead', 'APCHead', 'BiSeNetV1', 'BiSeNetV2', 'FastSCNN',
    'ICNet',
}  # fmt: skip


def check_before_training(cfg: Config, parts: Sequence[str], *, processes: int = 1) -> list[Report]:
    """Check the data that ``parts`` of a config read in a run of so many ``processes``; notes go to stderr.

    That large data have passed is remembered until a file changes; then there are no reports. A UserError lists what is
    wrong with the data.
    """
    splits = list_splits(cfg, parts, processes)
    images = sum(len(split.samples) for split in splits)
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    passed = cache / FOLDER / fingerprint(splits, f'{cfg.get("model")} {cfg.get("train_dataloader")} {processes}')
    with suppress(OSError):
        notes = passed.read_text(encoding='utf-8')
        print(f'the data have passed this check, and no file has changed since\n{notes}', end='', file=sys.stderr)
        return []
    print(f'checking the data: {images:,} images', file=sys.stderr)
    reports = check_splits(splits, decode=DECODED)
    if any(report.count(ERRORS) for report in reports):
        errors = [line for r in reports if r.count(ERRORS) for line in (r.title, *r.lines(list(ERRORS), SHOWN))]
        ways = 'mmres2net check-data lists all of them; --skip-data-check starts without this check'
        raise UserError('\n'.join([f'the data have {verdict(reports)}:', *errors, ways]))
    noted = [(r, kind) for r in reports for kind in r.kinds() if kind in NOTES and kind != 'image without annotations']
    lines = [f'{r.split.part}: {" ".join(line.strip() for line in r.lines([kind], 1))}' for r, kind in noted]
    notes = join_some(lines, limit=SHOWN - 1, sep='\n') + '\n' * bool(lines)
    print(notes, end='', file=sys.stderr)
    if images >= LEAST:
        with suppress(OSError):  # the next run checks again
            passed.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(passed, notes)
    return reports


def explain_failure(cfg: Config, parts: Sequence[str]) -> str:
    """Return what the check finds in data that a library failed to read; empty if it finds no error."""
    try:
        check_before_training(cfg, parts)
    except UserError as error:
        return str(error)
    return ''


def fingerprint(splits: Sequence[Split], settings: str) -> str:
    """Return a digest of ``settings`` and of all files of ``splits``: paths, sizes and times of change."""
    lines = [f'{__version__} {settings}']
    for split in splits:
        lines.append(f'{split.part} {split.node} {split.findings}')
        files = (path for s in split.samples for path in (s.image, s.mask, s.raw if isinstance(s.raw, str) else ''))
        for path in (split.source, *filter(None, files)):
            with suppress(OSError):
                facts = os.stat(path)
                lines.append(f'{path} {facts.st_size} {facts.st_mtime_ns}')
    return hashlib.sha256('\n'.join(lines).encode(errors='surrogateescape')).hexdigest()


def list_splits(cfg: Config, parts: Sequence[str], processes: int = 1) -> list[Split]:
    """Return the data sets of ``parts``, read and compared with ``cfg``; a UserError for missing or wrong files."""
    missing = []
    for node in (dataset for part in parts for dataset in datasets_of(cfg, part)):
        classes_of(cfg, node)
        paths = [Path(node.get('data_root') or '') / path for path in needed_paths(node)]
        missing += [path for path in paths if not path.exists()]
    if missing:
        listed = join_some(dict.fromkeys(missing), limit=20, sep='\n  ')
        raise UserError(f'the data are not in {Path.cwd()}; name their folder with --data DIR. Missing:\n  {listed}')
    splits = read_splits(cfg, parts)
    # Heads are not compared with classes that are wrong themselves.
    if not any(finding.kind in MISFITS for split in splits for finding in split.findings):
        seen: set[str] = set()
        for split in splits:
            faults = config_faults(cfg, split, processes)
            split.findings += [Finding('config does not fit', split.source, one) for one in faults if one not in seen]
            seen.update(faults)
    return splits


def head_faults(model: Any, classes: Sequence[str]) -> list[str]:
    """Return one message for all heads of ``model`` that classify another number of classes; none if they fit."""
    counts = {f'{path}.num_classes': node['num_classes'] for path, node in class_heads(model or {}).items()}
    wrong = {path: count for path, count in counts.items() if count != len(classes)}
    if not wrong or (model or {}).get('language_model'):  # a detector of phrases scores words, not classes
        return []
    listed = ', '.join(f'{path}={number}' for path, number in wrong.items())
    ways = ' '.join(f'{path}={len(classes)}' for path in wrong)
    return [f'{listed}, but the data set has {len(classes)} classes ({join_some(classes)}); add --cfg-options {ways}']


def class_heads(model: Any) -> dict[str, dict[str, Any]]:
    """Return the heads of a model's config that classify the classes of the data set, by path.

    Without such a head these are classifiers of mmpretrain that end in their backbone, as VGG does, or are one module.
    """
    heads: dict[str, dict[str, Any]] = {}
    others: dict[str, dict[str, Any]] = {}
    for path, node in walk(model, 'model'):
        key = next((step for step in reversed(path.split('.')) if not step.isdigit()), '')
        count = node.get('num_classes')
        if isinstance(count, int) and count > 0 and _kind(node) not in OTHER_CLASSES:
            heads |= {path: node} if key in CLASS_HEADS else {}
            others |= {path: node} if key in ('model', 'backbone') else {}
    return heads or others


def _kind(node: dict[str, Any]) -> str:
    return str(getattr(node.get('type'), '__name__', node.get('type'))).rpartition('.')[2]


def config_faults(cfg: Config, split: Split, processes: int) -> list[str]:
    """Return what in ``cfg`` does not fit a data set: heads, losses, top-k, files of evaluators, batch size."""
    parts, model = [name.partition('[')[0] for name in split.part.split(', ')], cfg.get('model') or {}
    evaluators = [pair for part in parts for pair in walk(cfg.get(f'{part}_evaluator') or {}, f'{part}_evaluator')]
    messages, count = [], len(split.classes)
    bases = {base.__name__ for base in dataset_class(cfg, split.node).__mro__}
    if split.classes and not bases & OTHER_LABELS:
        messages += head_faults(model, split.classes)
        for path, node in evaluators:  # mmpretrain's Accuracy says so only when the first epoch has been trained
            topk = node.get('topk')
            most = max(topk) if isinstance(topk, list | tuple) else topk
            if isinstance(most, int) and most > count:
                way = f'add --cfg-options {path}.topk=1'
                messages.append(f'{path}.topk={topk}, but the data set has {count} classes; {way}')
    for path, node in class_heads(model).items() if split.unit == 'pixels' and count == 1 else ():
        losses = node.get('loss_decode') or {}
        losses = losses if isinstance(losses, list | tuple) else [losses]
        types = [str(loss.get('type', 'CrossEntropyLoss')) for loss in losses if not loss.get('use_sigmoid')]
        if node['num_classes'] == 1 and sum(kind.endswith('CrossEntropyLoss') for kind in types) == len(losses):
            ways = 'use two, with masks of 0 and 1'
            messages.append(f'{path} has one class and a softmax, whose loss is always zero; {ways}')
    if 'CocoPanopticDataset' not in bases:  # its instances have a file of their own
        messages += [fault for part in parts for fault in evaluator_faults(cfg, part)]
    loader = cfg.get('train_dataloader') or {}
    batch, dataset = loader.get('batch_size') or 1, loader.get('dataset') or {}
    # Wrappers and endless samplers change the number of images: their last batch shows only when they are built.
    plain = datasets_of(cfg, 'train') == [dataset] and not dataset.get('indices') and not loader.get('drop_last')
    counted = plain and 'Infinite' not in str((loader.get('sampler') or {}).get('type'))
    images = -(-len(split.samples) // processes) if counted else 0
    if split.training and 1 in (batch, images % batch):
        for path, node in walk(model, 'model'):
            norm = str((node.get('norm_cfg') or {}).get('type'))
            if _kind(node) in POOLING and (norm.startswith('BN') or (norm == 'SyncBN' and processes == 1)):
                what = f'leaves a step one image, but {path} normalizes one pixel per image over the batch'
                way = 'set it to 2 or more' if batch == 1 else 'add --cfg-options train_dataloader.drop_last=True'
                messages.append(f'train_dataloader.batch_size={batch} {what}; {way}')
    return list(dict.fromkeys(messages))


def evaluator_faults(cfg: Config, part: str) -> Iterator[str]:
    """Yield a message for each evaluator of a part that reads another annotation file than the part's data sets."""
    nodes = [node for node in datasets_of(cfg, part) if isinstance(node.get('ann_file'), str) and node['ann_file']]
    files = [Path(node.get('data_root') or '') / node['ann_file'] for node in nodes]
    read = {path.resolve() for path in files}
    for path, node in walk(cfg.get(f'{part}_evaluator') or {}, f'{part}_evaluator'):
        own = node.get('ann_file')
        if isinstance(own, str) and own and files and Path(own).resolve() not in read:
            way = f'add --cfg-options {path}.ann_file={files[0]}'
            yield f'{path}.ann_file={own}, but the data set of {part}_dataloader reads another file; {way}'

"""The check in front of a run: what would fail late, or spoil the result without a word, fails now.

The OpenMMLab libraries leave out unknown classes without a word, number classes in the annotation file's order whatever
order the config has, draw batches from an empty set forever and read half of a truncated image as gray.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmres2net.data.check.config import batch_faults, config_findings
from mmres2net.data.check.job import check_splits
from mmres2net.data.check.memory import fingerprint, recall, remember
from mmres2net.data.check.report import ERRORS, NOTES, QUIET, Report
from mmres2net.data.formats.base import Split
from mmres2net.data.formats.folders import check_same_folders, image_folder
from mmres2net.data.formats.read import classes_of, dataset_class, format_of, read_splits
from mmres2net.data.layout import datasets_of, needed_paths
from mmres2net.errors import UserError
from mmres2net.text import join_some

DECODED = 400  # images of each split that are decoded before a run; of the others headers and ends are read
SHOWN = 5  # findings of a kind in the error


def check_before_training(
    cfg: Config, parts: Sequence[str], *, processes: int = 1, workers: int | None = None
) -> list[Report]:
    """Check the data that a run will read, and the config against them.

    Called by the first process alone, before processes meet and a model is built. Notes go to stderr.

    Args:
        cfg: The config of the run, with ``--data`` applied; it stays as it is.
        parts: The parts that the run reads: of ``train``, ``val``, ``test``.
        processes: Processes of the run.
        workers: Threads; None: one for each core, at most 16.

    Raises:
        UserError: The data have errors; the message lists them. ``--skip-data-check`` skips this check.
    """
    check_paths(cfg, parts)
    splits = list_splits(cfg, parts, processes=processes)
    name = fingerprint(splits, f'{cfg.get("model")} {processes}')
    known = recall(name)
    if known is not None:
        print(f'the data have passed this check, and no file has changed since\n{known}', end='', file=sys.stderr)
        return []
    print(f'checking the data: {sum(len(split.samples) for split in splits):,} images', file=sys.stderr)
    reports = check_splits(splits, workers=workers or default_workers(), decode=DECODED)
    add_batch_faults(cfg, reports, processes)
    raise_errors(reports)
    lines = [line for report in reports for line in _notes(report)]
    text = ''.join(f'{line}\n' for line in lines)
    print(text, end='', file=sys.stderr)
    remember(name, text)
    return reports


def default_workers() -> int:
    """Return the threads that read files."""
    return min(os.cpu_count() or 1, 16)


def list_splits(cfg: Config, parts: Sequence[str], *, processes: int = 1) -> list[Split]:
    """Return the data sets of ``parts`` with their annotations read and compared with the config.

    Raises:
        UserError: A data set that cannot be built, or classes that are no list of names.
    """
    folders = [
        folder
        for part in parts
        for dataset in datasets_of(cfg, part)
        if format_of(dataset_class(cfg, dataset)) == 'folders' and (folder := image_folder(dataset)) is not None
    ]
    different = check_same_folders(folders)
    splits = read_splits(cfg, parts)
    for split in splits[:1]:
        split.findings[:0] = different
    for split in splits:
        # Without folders of the same names, or with a class too few, the heads' size says nothing.
        if not different and not any(
            f.kind in ('classes do not fit', 'broken annotation file') for f in split.findings
        ):
            split.findings += config_findings(cfg, split)
    return splits


def add_batch_faults(cfg: Config, reports: Sequence[Report], processes: int = 1) -> None:
    """Add to the report of a training set that a step may have too few images."""
    training = [report for report in reports if 'train' in report.part]
    if training:
        training[0].findings += batch_faults(
            cfg, sum(r.kept for r in training), training[0].source, processes=processes
        )


def _notes(report: Report) -> list[str]:
    lines = report.lines([kind for kind in NOTES if kind not in QUIET], 2)
    return [f'{report.part}: {report.dataset} {report.source}', *lines] if lines else []


def raise_errors(reports: Sequence[Report]) -> None:
    """Raise one error with all findings that are errors.

    Raises:
        UserError: There are such findings.
    """
    text = errors_text(reports)
    if text:
        raise UserError(
            f'{text}\nfix the data or the config; mmres2net check-data lists all, --skip-data-check starts without'
        )


def errors_text(reports: Sequence[Report]) -> str:
    """Return all findings that are errors; nothing if there are none."""
    bad = [report for report in reports if report.count(ERRORS)]
    lines = [line for r in bad for line in [f'{r.part}: {r.dataset} {r.source}', *r.lines(list(ERRORS), SHOWN)]]
    count = sum(report.count(ERRORS) for report in bad)
    return '\n'.join([f'the data have {count:,} error' + ('' if count == 1 else 's'), *lines]) if bad else ''


def explain_failure(cfg: Config, parts: Sequence[str]) -> str:
    """Return what the check finds in data that a library failed to read; nothing if it finds no error."""
    try:
        check_before_training(cfg, parts)
    except UserError as error:
        return str(error)
    return ''


def check_paths(cfg: Config, parts: Sequence[str]) -> None:
    """Check that the files and folders which ``parts`` of the config name are there.

    Raises:
        UserError: Some are missing, or classes are no list of names.
    """
    missing = []
    for part in parts:
        for dataset in datasets_of(cfg, part):
            classes_of(cfg, dataset)
            root = Path(dataset.get('data_root') or '')
            missing += [root / path for path in needed_paths(dataset) if not (root / path).exists()]
    if missing:
        listed = join_some(dict.fromkeys(missing), limit=20, sep='\n  ')
        raise UserError(
            f'the data set is not where the config says (seen from {Path.cwd()}):\n  {listed}\n'
            'put it there, or name its folder with --data DIR'
        )

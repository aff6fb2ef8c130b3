"""The check in front of a run: what would fail late, or spoil the result without a word, fails now.

The OpenMMLab libraries leave out unknown classes without a word, number classes in the annotation file's order whatever
order the config has, draw batches from an empty set forever and read half of a truncated image as gray.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmres2net.data.check.config import batch_faults, config_findings
from mmres2net.data.check.job import check_splits
from mmres2net.data.check.memory import fingerprint, recall, remember
from mmres2net.data.check.report import ERRORS, QUIET, Report, verdict
from mmres2net.data.formats.base import Split
from mmres2net.data.formats.folders import check_same_folders, image_folder
from mmres2net.data.formats.read import classes_of, dataset_class, format_of, read_splits
from mmres2net.data.layout import datasets_of, needed_paths
from mmres2net.environment import granted_cores
from mmres2net.errors import UserError
from mmres2net.text import join_some

DECODED = 400  # images of each split that are decoded before a run; of the others headers and ends are read
SHOWN = 5  # findings of a kind in the error
MISFITS = ('classes do not fit', 'broken annotation file')


def check_before_training(
    cfg: Config, parts: Sequence[str], *, processes: int = 1, workers: int | None = None
) -> list[Report]:
    """Check the data that a run will read, and the config against them; notes go to stderr.

    Called by the first process alone, before processes meet and a model is built.

    Args:
        cfg: The config of the run, with ``--data`` applied; it stays as it is.
        parts: The parts that the run reads: of ``train``, ``val``, ``test``.
        processes: Processes of the run.
        workers: Threads that read files; None: one for each core, at most 16.

    Raises:
        UserError: The data have errors; the message lists them. ``--skip-data-check`` skips this check.
    """
    check_paths(cfg, parts)
    splits = list_splits(cfg, parts)
    name = fingerprint(splits, f'{cfg.get("model")} {cfg.get("train_dataloader")} {processes}')
    known = recall(name)
    if known is not None:
        print(f'the data have passed this check, and no file has changed since\n{known}', end='', file=sys.stderr)
        return []
    print(f'checking the data: {sum(len(split.samples) for split in splits):,} images', file=sys.stderr)
    reports = check_splits(splits, workers=workers or default_workers(), decode=DECODED)
    add_batch_faults(cfg, reports, processes)
    errors = _listed(reports, list(ERRORS), SHOWN)
    if errors:
        ways = 'mmres2net check-data lists all of them; --skip-data-check starts without this check'
        raise UserError(f'the data have {verdict(reports)}:\n{errors}{ways}')
    lines = [
        f'{report.part}: {" ".join(line.strip() for line in report.lines([kind], 1))}'
        for report in reports
        for kind in report.kinds()
        if kind not in QUIET
    ]
    notes = join_some(lines, limit=SHOWN - 1, sep='\n') + '\n' * bool(lines)
    print(notes, end='', file=sys.stderr)
    remember(name, notes)
    return reports


def explain_failure(cfg: Config, parts: Sequence[str]) -> str:
    """Return what the check finds in data that a library failed to read; empty if it finds no error."""
    try:
        check_before_training(cfg, parts)
    except UserError as error:
        return str(error)
    return ''


def _listed(reports: Sequence[Report], kinds: Sequence[str], show: int) -> str:
    """Return the findings of ``kinds`` as lines below the name of their data set."""
    found = [(report, report.lines(kinds, show)) for report in reports]
    return ''.join(f'{line}\n' for report, lines in found if lines for line in (report.title, *lines))


def default_workers() -> int:
    """Return how many threads read files by default."""
    return max(min(int(granted_cores()), 16), 1)


def list_splits(cfg: Config, parts: Sequence[str]) -> list[Split]:
    """Return the data sets of ``parts`` with their annotations read and compared with the config.

    Raises:
        UserError: A data set that cannot be built, or classes that are no list of names.
    """
    nodes = [dataset for part in parts for dataset in datasets_of(cfg, part)]
    folders = [image_folder(node) for node in nodes if format_of(dataset_class(cfg, node)) == 'folders']
    different = check_same_folders(list(dict.fromkeys(folder for folder in folders if folder is not None)))
    splits = read_splits(cfg, parts)
    seen: set[str] = set()
    for split in splits:
        # Heads are not compared with classes that are wrong themselves.
        if not different and not any(finding.kind in MISFITS for finding in split.findings):
            found = [finding for finding in config_findings(cfg, split) if finding.what not in seen]
            seen.update(finding.what for finding in found)
            split.findings += found
    for split in splits[:1]:
        split.findings += different
    return splits


def add_batch_faults(cfg: Config, reports: Sequence[Report], processes: int = 1) -> None:
    """Add to the report of a training set that a step may have too few images."""
    training = [report for report in reports if 'train' in report.part]
    images = sum(report.kept for report in training)
    for report in training[:1]:
        report.findings += batch_faults(cfg, images, report.source, processes=processes)


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

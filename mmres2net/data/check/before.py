"""The check in front of a run: what would fail late, or spoil the result without a word, fails now.

The OpenMMLab libraries leave out unknown classes without a word, number classes in the annotation file's order whatever
order the config has, draw batches from an empty set forever and read half of a truncated image as gray.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config

from mmres2net.data.check.config import config_findings
from mmres2net.data.check.job import check_splits
from mmres2net.data.check.report import ERRORS, QUIET, Report, verdict
from mmres2net.data.formats.base import Split
from mmres2net.data.formats.read import check_same_folders, classes_of, image_folder, read_splits
from mmres2net.data.layout import datasets_of, needed_paths
from mmres2net.errors import UserError
from mmres2net.files import write_atomic
from mmres2net.text import join_some
from mmres2net.version import __version__

DECODED = 400  # images of each split that are decoded before a run; of the others headers and ends are read
SHOWN = 5  # findings of a kind in the error
MISFITS = ('classes do not fit', 'broken annotation file')
LEAST = 2000  # images: that a smaller set has passed is not remembered
FOLDER = 'mmres2net/data_checks'  # of what has passed, in the user's cache


def check_before_training(cfg: Config, parts: Sequence[str], *, processes: int = 1) -> list[Report]:
    """Check the data that a run will read, and the config against them; notes go to stderr.

    Called by the first process alone, before processes meet and a model is built. That large data have passed is
    remembered until a file changes.

    Args:
        cfg: The config of the run, with ``--data`` applied; it stays as it is.
        parts: The parts that the run reads: of ``train``, ``val``, ``test``.
        processes: Processes of the run.

    Returns:
        A report for each data set; none if they are known to pass.

    Raises:
        UserError: The data have errors; the message lists them. ``--skip-data-check`` skips this check.
    """
    splits = list_splits(cfg, parts)
    images = sum(len(split.samples) for split in splits)
    passed = None
    if images >= LEAST:
        cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        passed = cache / FOLDER / fingerprint(splits, f'{cfg.get("model")} {cfg.get("train_dataloader")} {processes}')
        with suppress(OSError):
            notes = passed.read_text(encoding='utf-8')
            print(f'the data have passed this check, and no file has changed since\n{notes}', end='', file=sys.stderr)
            return []
    print(f'checking the data: {images:,} images', file=sys.stderr)
    reports = check_splits(splits, cfg, processes=processes, decode=DECODED)
    found = [(report, report.lines(list(ERRORS), SHOWN)) for report in reports]
    if errors := [line for report, lines in found if lines for line in (report.title, *lines)]:
        ways = 'mmres2net check-data lists all of them; --skip-data-check starts without this check'
        raise UserError('\n'.join([f'the data have {verdict(reports)}:', *errors, ways]))
    shown = [(report, kind) for report in reports for kind in report.kinds() if kind not in QUIET]
    lines = [f'{r.split.part}: {" ".join(line.strip() for line in r.lines([kind], 1))}' for r, kind in shown]
    notes = join_some(lines, limit=SHOWN - 1, sep='\n') + '\n' * bool(lines)
    print(notes, end='', file=sys.stderr)
    if passed is not None:
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
        annotations = (sample.raw for sample in split.samples if isinstance(sample.raw, str))
        images = (path for sample in split.samples for path in (sample.image, sample.mask) if path)
        for path in (split.source, *annotations, *images):
            with suppress(OSError):
                facts = os.stat(path)
                lines.append(f'{path} {facts.st_size} {facts.st_mtime_ns}')
    return hashlib.sha256('\n'.join(lines).encode(errors='surrogateescape')).hexdigest()


def list_splits(cfg: Config, parts: Sequence[str]) -> list[Split]:
    """Return the data sets of ``parts`` with their annotations read and compared with the config.

    Raises:
        UserError: Files are missing, a data set cannot be built, or classes are no list of names.
    """
    nodes = [dataset for part in parts for dataset in datasets_of(cfg, part)]
    missing = []
    for node in nodes:
        classes_of(cfg, node)
        root = Path(node.get('data_root') or '')
        missing += [root / path for path in needed_paths(node) if not (root / path).exists()]
    if missing:
        listed = join_some(dict.fromkeys(missing), limit=20, sep='\n  ')
        raise UserError(
            f'the data set is not where the config says (seen from {Path.cwd()}):\n  {listed}\n'
            'put it there, or name its folder with --data DIR'
        )
    folders = [image_folder(cfg, node) for node in nodes]
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

"""``mmres2net prepare-data``: from nothing, or from archives, to a data set that is complete and counted.

Nothing is done twice: a data set that has everything is left alone, whoever made it; an archive that is there is not
fetched, a part of one is continued, a file that is unpacked stays. State is what lies on disk, and the journal of an
archive that is being unpacked.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mmres2net.data.prepare.archives import DamagedArchiveError, missing_bytes, unpack
from mmres2net.data.prepare.checks import Check, Files
from mmres2net.data.prepare.sources import DATASETS, Archive, DataSet
from mmres2net.errors import UserError
from mmres2net.fetch.download import RetryPolicy, damage, fetch
from mmres2net.fetch.progress import log
from mmres2net.files import disk_error, file_size, locked, nearest_folder, require_space, size_text

DOWNLOADS = 'downloads'


@dataclass(frozen=True)
class Job:
    """A data set to be made below ``root``.

    Attributes:
        dataset: What to make.
        root: Where; its folder ``downloads`` holds archives and journals.
        source: A folder of archives and other files that are there already, which is only read.
        remove: Whether to remove downloaded archives once they are unpacked.
        patience: How long to insist with a server.
    """

    dataset: DataSet
    root: Path
    source: Path | None = None
    remove: bool = False
    patience: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def downloads(self) -> Path:
        """The folder of archives."""
        return self.root / DOWNLOADS

    def journal(self, archive: Archive) -> Path:
        """The list that is there while an archive is being unpacked."""
        return self.downloads / f'{archive.name}.unpacking'

    def present(self, archive: Archive) -> Path | None:
        """Return the file that seems to be the archive, by name and size."""
        folders = _folders(self)
        paths = (folder / archive.name for folder in folders)
        return next((path for path in paths if file_size(path) == archive.size), None)

    def todo(self) -> list[Archive]:
        """Return the archives that are not unpacked, where the data set as a whole is not complete.

        Raises:
            UserError: A folder has more files than the data set.
        """
        checks = {*self.dataset.checks, *(check for archive in self.dataset.archives for check in archive.checks)}
        _forbid_strangers(checks, self.root)
        open_ones = [archive for archive in self.dataset.archives if self.journal(archive).exists()]
        if not open_ones and not faults(self.dataset.checks, self.root):
            return []
        return [
            archive for archive in self.dataset.archives if archive in open_ones or faults(archive.checks, self.root)
        ]


def faults(checks: Iterable[Check], root: Path) -> list[str]:
    """Return what the checks find wrong below ``root``."""
    return [fault for check in checks if (fault := check.fault(root))]


def _forbid_strangers(checks: Iterable[Check], root: Path) -> None:
    for check in checks:
        if isinstance(check, Files) and check.found(root) > check.count:
            raise UserError(f'{check.fault(root)}: move those that are not of the data set, or choose another --root')


def prepare(job: Job) -> None:
    """Make the data set of a job, as far as it is not there.

    Raises:
        UserError: An archive cannot be had, the disk is full, strange files are in the way, or counts are wrong.
    """
    try:
        if not job.todo() and not faults(job.dataset.checks, job.root):
            log('everything is there: nothing to do')
            return
        job.downloads.mkdir(parents=True, exist_ok=True)
        busy = f'another prepare-data process is using {job.downloads}; wait for it, or choose another --root'
        try:
            with locked(job.downloads, busy):
                _make(job)
        finally:
            with suppress(OSError):
                job.downloads.rmdir()  # succeeds on an empty folder only
    except OSError as error:
        raise disk_error(error, job.root) from error


def _make(job: Job) -> None:
    todo = job.todo()
    require_space(room_needed(job, todo))
    for archive in todo:
        _install(job, archive)
    if job.dataset.finish:
        job.dataset.finish(job.root)
    absent = _bring(job)
    wrong = faults(job.dataset.checks, job.root)
    if wrong:
        listed = '\n'.join(f'  {fault}' for fault in wrong)
        if job.dataset.by_hand:
            raise UserError('\n'.join(['the data set is not complete:', listed, *_what_to_bring(job, absent)]))
        raise UserError(
            f'the data set is not complete, although all archives were unpacked:\n{listed}\n'
            'move what does not belong there, and run the same command again'
        )


def _bring(job: Job) -> list[str]:
    """Lay out what the user brought, as far as it is needed; return what was not found."""
    by_hand = job.dataset.by_hand
    if by_hand is None or by_hand.collect is None or not faults(job.dataset.checks, job.root):
        return []
    folders = _folders(job)
    return [f'{what} is not in {" or ".join(map(str, folders))}' for what in by_hand.collect(folders, job.root)]


def _folders(job: Job) -> list[Path]:
    """Where archives and other files of the user are looked for."""
    return [job.source, job.downloads] if job.source else [job.downloads]


def _what_to_bring(job: Job, absent: Sequence[str] = ()) -> list[str]:
    """Return lines that tell what has to be fetched by hand, and how it is found."""
    by_hand = job.dataset.by_hand
    if by_hand is None:
        return []
    steps = [step.format(root=job.root) for step in by_hand.steps]
    steps.append(
        'run the same command again' + (' with --from DIR, the folder that has them' if by_hand.collect else '')
    )
    return ['this has to be brought by hand:', *(f'  - {step}' for step in steps), *(f'  {what}' for what in absent)]


def room_needed(job: Job, todo: Sequence[Archive]) -> dict[Path, int]:
    """Return how many bytes the archives in ``todo`` still bring, by the folder they go to."""
    room: Counter[Path] = Counter()
    for archive in todo:
        if job.present(archive) is None:
            part = max(file_size(job.downloads / f'{archive.name}.part'), 0)
            # What is fetched and removed again needs its room only once, for the largest.
            need = max(archive.size - part, 0)
            room[job.downloads] = max(room[job.downloads], need) if job.remove else room[job.downloads] + need
        journal = job.journal(archive)
        unpacked = missing_bytes(journal, job.root) if journal.exists() else archive.unpacked
        room[job.root / next(iter(archive.places.values()))] += unpacked
    return dict(room)


def _install(job: Job, archive: Archive) -> None:
    path = _have(job, archive) or fetch(archive.remote, job.downloads, job.patience)
    try:
        _unpack(job, archive, path)
    except DamagedArchiveError as error:
        _reject(job, path, str(error))
        path = fetch(archive.remote, job.downloads, job.patience)
        try:
            _unpack(job, archive, path)
        except DamagedArchiveError as again:
            raise UserError(f'{path} has the right MD5, but {again}; this disk or memory may be failing') from again
    if job.remove and path.parent == job.downloads:
        path.unlink()


def _unpack(job: Job, archive: Archive, path: Path) -> None:
    log(f'unpacking {path}')
    unpack(path, archive.places, job.root, job.journal(archive))


def _have(job: Job, archive: Archive) -> Path | None:
    """Return the archive where it is there and undamaged."""
    for folder in _folders(job):
        path = folder / archive.name
        if not path.is_file():
            if folder == job.source:
                log(f'{archive.name} is not in {folder}')
            continue
        fault = damage(path, archive.remote)
        if not fault:
            return path
        _reject(job, path, fault)
    return None


def _reject(job: Job, path: Path, fault: str) -> None:
    if path.parent == job.downloads:
        path.unlink()
        log(f'{path} is damaged: {fault}; removed, it is fetched again')
    else:
        log(f'{path} is damaged: {fault}; it stays where it is, and the archive is fetched to {job.downloads}')


def plan(job: Job) -> str:
    """Return what `prepare` would do, as a table."""
    todo = job.todo()
    lines = []
    for archive in job.dataset.archives:
        lines.append(f'  {archive.name:<29} {size_text(archive.size):>9}  {_state(job, archive, todo)}')
        lines += [f'    {url}' for url in archive.urls] if archive in todo and not job.present(archive) else []
    need, free = sum(room_needed(job, todo).values()), shutil.disk_usage(nearest_folder(job.root)).free
    lines.append(f'  room needed at {job.root}: {size_text(need)}; free: {size_text(free)}')
    lines += [f'  {line}' for line in _what_to_bring(job)] if faults(job.dataset.checks, job.root) else []
    return '\n'.join(lines)


def _state(job: Job, archive: Archive, todo: Sequence[Archive]) -> str:
    if archive not in todo:
        return 'unpacked, or not needed'
    present, part = job.present(archive), file_size(job.downloads / f'{archive.name}.part')
    if present:
        return f'to be unpacked from {present}'
    return f'to be fetched and unpacked, {size_text(part)} are there' if part > 0 else 'to be fetched and unpacked'


def parser(names: Iterable[str]) -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(
        prog='mmres2net prepare-data',
        description='Fetch a public data set, check it, and lay it out as the configs read it. '
        'Interrupted anywhere, the same command continues.',
    )
    flags.add_argument('dataset', choices=list(names))
    flags.add_argument('--root', type=Path, default=Path('data'), metavar='DIR', help='where to (default: %(default)s)')
    flags.add_argument(
        '--from',
        dest='source',
        type=Path,
        metavar='DIR',
        help='use the archives in DIR, or what else has to be brought by hand; it is only read',
    )
    flags.add_argument('--remove-archives', action='store_true', help='remove each download once it is unpacked')
    flags.add_argument('--dry-run', action='store_true', help='say what would be done, and where from')
    return flags


def main(argv: Sequence[str], datasets: Mapping[str, DataSet] = DATASETS) -> int:
    """Prepare the data set that ``argv`` names; return the exit status.

    Raises:
        UserError: As `prepare`, or a folder that cannot be used.
    """
    args = parser(datasets).parse_args(argv)
    root, source = args.root.expanduser(), args.source.expanduser() if args.source else None
    if source and not source.is_dir():
        raise UserError(f'--from {args.source}: no such folder')
    if root.exists() and not root.is_dir():
        raise UserError(f'--root {args.root}: this is a file, not a folder')
    if source and source.resolve() == (root / DOWNLOADS).resolve():
        source = None  # where archives are looked for anyhow
    dataset = datasets[args.dataset]
    if source and dataset.by_hand and not dataset.by_hand.collect and not dataset.archives:
        steps = '\n'.join(_what_to_bring(Job(dataset, root)))
        raise UserError(f'--from {args.source}: nothing of {args.dataset} is laid out from a folder; {steps}')
    job = Job(dataset, root, source=source, remove=args.remove_archives)
    print(f'{dataset.title}\nterms of use: {dataset.home}')
    if args.dry_run:
        print(plan(job))
        return 0
    try:
        prepare(job)
    except KeyboardInterrupt:
        print('interrupted: the same command continues', file=sys.stderr)
        return 130
    print(report(job))
    return 0


def report(job: Job) -> str:
    """Return what there is now and how to use it."""
    data = job.root / job.dataset.data
    command = f'mmres2net train {job.dataset.config} --data {data}' if job.dataset.config else f'--data {data}'
    counts = dict.fromkeys(f'  {check.summary()}' for check in job.dataset.checks)
    return '\n'.join([f'complete in {data}:', *counts, f'use it with: {command}'])

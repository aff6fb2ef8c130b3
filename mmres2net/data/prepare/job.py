"""``mmres2net prepare-data``: fetch the archives of a data set, unpack and count them.

Nothing is done twice: a complete data set is left alone, whoever made it; an archive that is there is not fetched, a
partial download is resumed, an unpacked file stays. The state is on disk: the files, and the temporary folder of an
archive that is being unpacked.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmres2net.data.prepare.archives import DamagedArchiveError, unpack
from mmres2net.data.prepare.checks import Check, Files
from mmres2net.data.prepare.sources import DATASETS, Archive, DataSet
from mmres2net.errors import UserError
from mmres2net.fetch.download import RetryPolicy, damage, fetch
from mmres2net.fetch.progress import log
from mmres2net.files import disk_error, file_size, locked, nearest_folder, require_space, size_text
from mmres2net.flags import parse


@dataclass(frozen=True)
class Job:
    """A data set to prepare below ``root``."""

    dataset: DataSet
    root: Path  # the folder of the data sets; its folder `downloads` holds archives
    source: Path | None = None  # a folder of archives and other files of the user; it is only read
    remove: bool = False  # downloaded archives once their content is in place
    patience: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def downloads(self) -> Path:
        """The folder of archives."""
        return self.root / 'downloads'

    @property
    def folders(self) -> list[Path]:
        """The folders that may have archives and other files of the user."""
        return [self.source, self.downloads] if self.source else [self.downloads]

    def temporary(self, archive: Archive) -> Path:
        """The folder that is there while an archive is being unpacked."""
        return self.downloads / f'{archive.name}.unpacking'

    def present(self, archive: Archive) -> Path | None:
        """Return the file that seems to be the archive, by name and size."""
        paths = (folder / archive.name for folder in self.folders)
        return next((path for path in paths if file_size(path) == archive.size), None)

    def part_size(self, archive: Archive) -> int:
        """Return how many bytes of an archive have been downloaded."""
        return max(file_size(self.downloads / f'{archive.name}.part'), 0)

    def faults(self, checks: Iterable[Check] | None = None) -> list[str]:
        """Return the faults that ``checks`` find below the root; None: those of the data set."""
        checks = self.dataset.checks if checks is None else checks
        return [fault for check in checks if (fault := check.fault(self.root))]

    def todo(self) -> list[Archive]:
        """Return the archives that are not unpacked; a UserError says that a folder has more files than the set."""
        archives = self.dataset.archives
        for check in {*self.dataset.checks, *(check for archive in archives for check in archive.checks)}:
            if isinstance(check, Files) and check.found(self.root) > check.count:
                fault = check.fault(self.root)
                raise UserError(f'{fault}: move the files that do not belong to it, or choose another --root')
        unfinished = [archive for archive in archives if self.temporary(archive).exists()]
        if not unfinished and not self.faults():
            return []
        return [archive for archive in archives if archive in unfinished or self.faults(archive.checks)]


def prepare(job: Job) -> None:
    """Prepare the data set of a job, as far as it is missing.

    Raises:
        UserError: An archive cannot be fetched, the disk is full, there are extra files, or counts are wrong.
    """
    try:
        if not job.todo() and not job.faults():
            log('the data set is complete: nothing to do')
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
    require_space(space_needed(job, todo))
    used = []
    for archive in todo:
        used.append(_install(job, archive))
        if not job.dataset.finish:
            _remove(job, used)
    if job.dataset.finish:
        job.dataset.finish(job.root)
        _remove(job, used)  # not before: if finishing fails, nothing has to be fetched again
    absent = _collect(job)
    if wrong := job.faults():
        listed = '\n'.join(f'  {fault}' for fault in wrong)
        if job.dataset.by_hand:
            raise UserError('\n'.join(['the data set is not complete:', listed, *_manual_steps(job, absent)]))
        raise UserError(
            f'the data set is not complete, although all archives were unpacked:\n{listed}\n'
            'move the files that do not belong there, and run the same command again'
        )


def _remove(job: Job, archives: Iterable[Path]) -> None:
    """Remove downloaded archives, if the job says so; never those of the user."""
    for path in archives:
        if job.remove and path.parent == job.downloads:
            path.unlink(missing_ok=True)


def _collect(job: Job) -> list[str]:
    """Lay out the user's files, as far as they are needed; return what was not found."""
    by_hand = job.dataset.by_hand
    if by_hand is None or not job.faults():
        return []
    where = ' or '.join(map(str, job.folders))
    return [f'{what} is not in {where}' for what in by_hand.collect(job.folders, job.root)]


def _manual_steps(job: Job, absent: Sequence[str] = ()) -> list[str]:
    """Return lines that say what the user has to fetch, and how to pass it on."""
    by_hand = job.dataset.by_hand
    if by_hand is None:
        return []
    how = ' with --from DIR, the folder that has them' if by_hand.can_collect else ''
    steps = [*(step.format(root=job.root) for step in by_hand.steps), f'run the same command again{how}']
    return ['this has to be fetched by hand:', *(f'  - {step}' for step in steps), *(f'  {what}' for what in absent)]


def space_needed(job: Job, todo: Sequence[Archive]) -> dict[Path, int]:
    """Return the bytes that the archives in ``todo`` still need, by folder: an estimate, exact once they are there."""
    space: Counter[Path] = Counter()
    for archive in todo:
        if job.present(archive) is None:
            need = max(archive.size - job.part_size(archive), 0)
            # Archives that are removed before the next one is fetched need the space of the largest.
            once = job.remove and not job.dataset.finish
            space[job.downloads] = max(space[job.downloads], need) if once else space[job.downloads] + need
        places = [job.root / place for place in archive.places.values()]
        have = sum(path.stat().st_size for place in places for path in place.glob('**/*') if path.is_file())
        space[places[0]] += max(archive.unpacked - have, 0)
    return dict(space)


def _install(job: Job, archive: Archive) -> Path:
    """Fetch an archive unless it is there, unpack it and return its path."""
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
    return path


def _unpack(job: Job, archive: Archive, path: Path) -> None:
    log(f'unpacking {path}')
    unpack(path, archive.places, job.root, job.temporary(archive))


def _have(job: Job, archive: Archive) -> Path | None:
    """Return the path of an archive that is there and undamaged."""
    for path in (folder / archive.name for folder in job.folders):
        if not path.is_file():
            if path.parent == job.source:
                log(f'{archive.name} is not in {job.source}')
            continue
        fault = damage(path, archive.remote)
        if not fault:
            return path
        _reject(job, path, fault)
    return None


def _reject(job: Job, path: Path, fault: str) -> None:
    if path.parent == job.downloads:
        path.unlink()
        log(f'{path} is damaged: {fault}; it is removed and fetched again')
    else:
        log(f'{path} is damaged: {fault}; it is left alone, and the archive is fetched to {job.downloads}')


def plan(job: Job) -> str:
    """Return what :func:`prepare` would do, as a table."""
    todo = job.todo()
    lines = []
    for archive in job.dataset.archives:
        lines.append(f'  {archive.name:<29} {size_text(archive.size):>9}  {_state(job, archive, todo)}')
        lines += [f'    {url}' for url in archive.urls] if archive in todo and not job.present(archive) else []
    need, free = sum(space_needed(job, todo).values()), shutil.disk_usage(nearest_folder(job.root)).free
    lines.append(f'  space needed at {job.root}: {size_text(need)}; free: {size_text(free)}')
    lines += [f'  {line}' for line in _manual_steps(job)] if job.faults() else []
    return '\n'.join(lines)


def _state(job: Job, archive: Archive, todo: Sequence[Archive]) -> str:
    if archive not in todo:
        return 'unpacked, or not needed'
    if present := job.present(archive):
        return f'will be unpacked from {present}'
    part = job.part_size(archive)
    return 'will be fetched and unpacked' + (f'; {size_text(part)} are there' if part else '')


def main(argv: Sequence[str], datasets: Mapping[str, DataSet] = DATASETS) -> int:
    """Prepare the data set that ``argv`` names; return the exit status.

    Raises:
        UserError: As `prepare`, or a folder that cannot be used.
    """
    args = parse('prepare-data', argv, data_sets=datasets)
    root, source = args.root.expanduser(), args.source.expanduser() if args.source else None
    if source and not source.is_dir():
        raise UserError(f'--from {args.source}: no such folder')
    if root.exists() and not root.is_dir():
        raise UserError(f'--root {args.root}: this is a file, not a folder')
    job = Job(datasets[args.dataset], root, remove=args.remove_archives)
    if source and source.resolve() != job.downloads.resolve():  # which is searched anyway
        job = replace(job, source=source)
    dataset = job.dataset
    if source and dataset.by_hand and not dataset.by_hand.can_collect and not dataset.archives:
        steps = '\n'.join(_manual_steps(job))
        raise UserError(f'--from {args.source}: {args.dataset} cannot be prepared from a folder; {steps}')
    print(f'{dataset.title}\nterms of use: {dataset.home}')
    if args.dry_run:
        print(plan(job))
        return 0
    try:
        prepare(job)
    except KeyboardInterrupt:
        print('interrupted: run the same command again to resume', file=sys.stderr)
        return 130
    print(report(job))
    return 0


def report(job: Job) -> str:
    """Return what is there now, and how to use it."""
    data = job.root / job.dataset.data
    command = f'mmres2net train {job.dataset.config} --data {data}' if job.dataset.config else f'--data {data}'
    counts = dict.fromkeys(f'  {check.summary()}' for check in job.dataset.checks)
    return '\n'.join([f'complete in {data}:', *counts, f'use it with: {command}'])

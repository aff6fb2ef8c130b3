"""``mmres2net prepare-data``: fetch the archives of a data set, unpack and count them.

Nothing is done twice: a complete data set is left alone, whoever made it; an archive that is there is not fetched, a
partial download is resumed, an unpacked file stays. The state is on disk: the files, and the temporary folder of an
archive that is being unpacked.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mmres2net.data.prepare.archives import DamagedArchiveError, put, unpack, unpacked_files
from mmres2net.data.prepare.finish import write_lists
from mmres2net.data.prepare.sources import DATASETS, Archive, Check, DataSet
from mmres2net.errors import UserError
from mmres2net.fetch.download import damage, fetch
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
        return next((path for path in paths if path.is_file() and archive.size in (0, file_size(path))), None)

    def part_size(self, archive: Archive) -> int:
        """Return how many bytes of an archive have been downloaded."""
        return max(file_size(self.downloads / f'{archive.name}.part'), 0)

    def faults(self, checks: Iterable[Check]) -> list[str]:
        """Return the faults that ``checks`` find below the root."""
        return [fault for check in checks if (fault := check.fault(self.root))]

    def todo(self) -> list[Archive]:
        """Return the archives that are not unpacked; a UserError says that a folder has more files than the set."""
        archives = self.dataset.archives
        for check in {*self.dataset.checks, *(check for archive in archives for check in archive.checks)}:
            if '*' in check.source and len(check.names(self.root)) > check.count:
                fault = check.fault(self.root)
                raise UserError(f'{fault}: move the files that do not belong to it, or choose another --root')
        unfinished = [archive for archive in archives if self.temporary(archive).exists()]
        if not unfinished and not self.faults(self.dataset.checks):
            return []
        return [archive for archive in archives if archive in unfinished or self.faults(archive.checks)]


def prepare(job: Job) -> None:
    """Prepare the data set of a job, as far as it is missing.

    Raises:
        UserError: An archive cannot be fetched, the disk is full, there are extra files, or counts are wrong.
    """
    try:
        if not job.todo() and not job.faults(job.dataset.checks):
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
    dataset, todo = job.dataset, job.todo()
    require_space(space_needed(job, todo))
    absent = []
    for archive in todo:
        absent += _install(job, archive)
        if not dataset.finish:
            _remove(job, [archive])
    if dataset.finish:
        dataset.finish(job.root)
    _remove(job, dataset.archives)  # not before: if finishing fails, nothing has to be fetched again
    if dataset.lists and job.faults(dataset.checks):
        absent += write_lists(job.root / dataset.lists, job.folders)
    if wrong := job.faults(dataset.checks):
        where = ' or '.join(map(str, job.folders))
        lines = [*_manual_steps(job), *(f'  {what} is not in {where}' for what in absent)]
        if not dataset.steps:
            lines = ['all archives were unpacked: move the files that do not belong there, and run the command again']
        raise UserError('\n'.join(['the data set is not complete:', *(f'  {fault}' for fault in wrong), *lines]))


def _remove(job: Job, archives: Sequence[Archive]) -> None:
    """Remove downloaded archives, if the job says so; never those of the user."""
    for archive in archives:
        if job.remove and archive.urls:
            (job.downloads / archive.name).unlink(missing_ok=True)


def _manual_steps(job: Job) -> list[str]:
    """Return lines that say what the user has to fetch, and how to pass it on."""
    dataset = job.dataset
    how = ' with --from DIR, the folder that has them' if dataset.archives else ''
    steps = [*(step.format(root=job.root) for step in dataset.steps), f'run the same command again{how}']
    return ['this has to be fetched by hand:', *(f'  - {step}' for step in steps)] if dataset.steps else []


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
        space[places[0]] += max((archive.unpacked or archive.size) - have, 0)
    return dict(space)


def _install(job: Job, archive: Archive, *, again: bool = False) -> list[str]:
    """Fetch an archive unless it is there, and unpack it; return what the user has to fetch."""
    if not archive.urls:
        members, absent = unpacked_files(archive.places, job.folders)
        if not absent:
            put(members, archive.places, job.root, job.temporary(archive))
            return []
    path = None if again else _have(job, archive)
    if path is None and not archive.urls:
        packed = '' if archive.name.endswith('.rar') else f'{archive.name} or '  # which Python cannot unpack
        return [f'{packed}{what}' for what in absent]
    path = path or fetch(archive.remote, job.downloads)
    try:
        unpack(path, archive.places, job.root, job.temporary(archive))
    except DamagedArchiveError as error:
        if again:
            raise UserError(f'{path} has the right checksum, but {error}; this disk or memory may fail') from error
        _reject(job, archive, path, str(error))
        return _install(job, archive, again=True)
    return []


def _have(job: Job, archive: Archive) -> Path | None:
    """Return the path of an archive that is there and undamaged."""
    for path in (folder / archive.name for folder in job.folders):
        if path.is_file():
            fault = damage(path, archive.remote)
            if not fault:
                return path
            _reject(job, archive, path, fault)
        elif path.parent == job.source and archive.urls:
            log(f'{archive.name} is not in {job.source}')
    return None


def _reject(job: Job, archive: Archive, path: Path, fault: str) -> None:
    """Make way for another download of an archive; a UserError if it cannot be downloaded."""
    if not archive.urls:
        ways = 'fetch it again, or unpack it with another program and name the folder with --from'
        raise UserError(f'{path} cannot be used: {fault}; {ways}')
    if path.parent == job.downloads:
        path.unlink()
        log(f'{path} is damaged: {fault}; it is removed and fetched again')
    else:
        log(f'{path} is damaged: {fault}; it is left alone, and the archive is fetched to {job.downloads}')


def plan(job: Job) -> str:
    """Return what :func:`prepare` would do, as a table."""
    todo, lines = job.todo(), []
    for archive in job.dataset.archives:
        present, part = job.present(archive), job.part_size(archive)
        state = 'will be fetched and unpacked' + (f'; {size_text(part)} are there' if part else '')
        state = state if archive.urls else 'has to be fetched by hand'
        state = f'will be unpacked from {present}' if present else state
        state = state if archive in todo else 'unpacked, or not needed'
        lines.append(f'  {archive.name:<29} {size_text(archive.size) if archive.size else "":>9}  {state}')
        lines += [f'    {url}' for url in archive.urls] if archive in todo and not present else []
    need, free = sum(space_needed(job, todo).values()), shutil.disk_usage(nearest_folder(job.root)).free
    lines.append(f'  space needed at {job.root}: {size_text(need)}; free: {size_text(free)}')
    lines += [f'  {line}' for line in _manual_steps(job)] if job.faults(job.dataset.checks) else []
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the data set that ``argv`` names; return the exit status.

    Raises:
        UserError: As `prepare`, or a folder that cannot be used.
    """
    args = parse('prepare-data', argv)
    dataset, root, source = DATASETS[args.dataset], args.root.expanduser(), args.source and args.source.expanduser()
    if source and not source.is_dir():
        raise UserError(f'--from {args.source}: no such folder')
    if root.exists() and not root.is_dir():
        raise UserError(f'--root {args.root}: this is a file, not a folder')
    if source and source.resolve() == (root / 'downloads').resolve():  # which is searched anyway
        source = None
    job = Job(dataset, root, source, args.remove_archives)
    if args.source and not dataset.archives:
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
        raise
    data = root / dataset.data
    print(f'complete in {data}:')
    print('\n'.join(dict.fromkeys(f'  {check.count:>9,}  {check.source}' for check in dataset.checks)))
    print(f'use it with: {f"mmres2net train {dataset.config} " if dataset.config else ""}--data {data}')
    return 0

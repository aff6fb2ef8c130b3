"""``mmres2net prepare-data``: fetch the archives of a data set, unpack and count them.

Nothing is done twice: a complete data set is left alone, a partial download is resumed, an unpacked file stays. The
state is on disk: the files, and the temporary folder of an archive that is being unpacked.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

import yaml

from mmres2net.data.prepare.archives import put, unpack, unpacked_files
from mmres2net.data.prepare.finish import make_trainaug, write_lists
from mmres2net.errors import UserError
from mmres2net.fetch.download import Remote, damage, fetch, log
from mmres2net.files import disk_error, file_size, locked, require_space
from mmres2net.flags import parse

TABLE = Path(__file__).with_name('datasets.yml')


@dataclass(frozen=True)
class Check:
    """So many files are there, and each has its companions. Hidden files do not count."""

    # Below the root: a pattern, such as coco/val2017/*.jpg (with a slash at its end, of folders), a text file (.txt)
    # with a list of names, or another file, which must not be empty.
    source: str
    count: int = 1  # files or names
    files: tuple[str, ...] = ()  # that each of them must have, below the root, with {} for the name without suffix

    def names(self, root: Path) -> list[str]:
        """Return the names that are there."""
        if '*' not in self.source and not ((root / self.source).is_file() and (root / self.source).stat().st_size):
            return []
        if self.source.endswith('.txt'):
            return (root / self.source).read_text(encoding='utf-8', errors='replace').split()
        return [Path(path).stem for path in glob(self.source, root_dir=root)]

    def fault(self, root: Path) -> str:
        """Return what is wrong below ``root``; empty if nothing is."""
        names, path = self.names(root), f'{root}/{self.source}'
        if not names and '*' not in self.source:
            return f'{path} is missing or empty'
        if len(names) != self.count:
            return f'{path}: {len(names):,} of {self.count:,} are there'
        places = (root / files.format(name) for name in names for files in self.files)
        missing = [place for place in places if not place.is_file()]
        return f'{path}: {len(missing):,} files for it are missing, such as {missing[0]}' if missing else ''


@dataclass(frozen=True)
class Archive:
    """One zip or tar file."""

    name: str  # file name
    places: Mapping[str, str]  # see `archives.unpack`
    checks: tuple[Check, ...]  # of the unpacked files
    urls: tuple[str, ...] = ()  # in the order in which they are tried; none: the user has to fetch it
    size: int = 0  # bytes; 0: not known
    unpacked: int = 0  # estimated bytes of the unpacked files; 0: as the archive
    md5: str = ''  # in hexadecimal digits; empty if only SHA-256 is known, or none
    sha256: str = ''

    @property
    def remote(self) -> Remote:
        """The file to download."""
        way = 'or download the file in another way, and name its folder with --from DIR'
        algorithm = 'md5' if self.md5 else 'sha256'
        return Remote(self.name, self.urls, self.size or None, self.md5 or self.sha256, algorithm, ways_out=(way,))


@dataclass(frozen=True)
class DataSet:
    """A data set: archives to unpack, and what the user has to do."""

    title: str  # description in one line
    home: str  # the web page with its terms of use
    checks: tuple[Check, ...]  # a complete data set passes them; then no archive is needed
    data: str  # the folder below the root to pass to --data
    archives: tuple[Archive, ...] = ()
    config: str = ''  # a shipped config that reads it
    finish: Callable[[Path], None] | None = None  # called with the root after all archives are unpacked
    steps: tuple[str, ...] = ()  # what the user has to fetch from where, and to do with it; {root} stands for the root
    lists: str = ''  # the folder below the root for train.txt, val.txt and test.txt, which the user has to fetch


def _read_table() -> dict[str, DataSet]:
    class Loader(yaml.SafeLoader):
        """Makes an instance of the class that a tag names, and tuples instead of lists."""

    kinds = {kind.__name__: kind for kind in (DataSet, Archive, Check)}
    Loader.add_multi_constructor('!', lambda loader, name, node: kinds[name](**loader.construct_mapping(node, True)))
    Loader.add_constructor('tag:yaml.org,2002:seq', lambda loader, node: tuple(loader.construct_sequence(node, True)))
    table: dict[str, DataSet] = yaml.load(TABLE.read_text(encoding='utf-8'), Loader)
    return {**table, 'voc12aug': replace(table['voc12aug'], finish=make_trainaug)}


DATASETS = _read_table()


@dataclass(frozen=True)
class Job:
    """A data set to prepare below ``root``."""

    dataset: DataSet
    root: Path  # the folder of the data sets; its folder `downloads` holds archives
    source: Path | None = None  # a folder of archives and other files of the user; it is only read

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
    """Prepare the data set of a job, as far as it is missing; a UserError says why that is not possible."""
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
    absent = [what for archive in todo for what in _install(job, archive)]
    if dataset.finish:
        dataset.finish(job.root)
    if dataset.lists and job.faults(dataset.checks):
        absent += write_lists(job.root / dataset.lists, job.folders)
    if wrong := job.faults(dataset.checks):
        where = ' or '.join(map(str, job.folders))
        lines = [*_manual_steps(job), *(f'  {what} is not in {where}' for what in absent)]
        if not dataset.steps:
            lines = ['all archives were unpacked: move the files that do not belong there, and run the command again']
        raise UserError('\n'.join(['the data set is not complete:', *(f'  {fault}' for fault in wrong), *lines]))


def _manual_steps(job: Job) -> list[str]:
    dataset = job.dataset
    how = ' with --from DIR, the folder that has them' if dataset.archives else ''
    steps = [*(step.format(root=job.root) for step in dataset.steps), f'run the same command again{how}']
    return ['this has to be fetched by hand:', *(f'  - {step}' for step in steps)] if dataset.steps else []


def space_needed(job: Job, todo: Sequence[Archive]) -> dict[Path, int]:
    """Return the bytes that the archives in ``todo`` still need, by folder: an estimate, exact once they are there."""
    space: Counter[Path] = Counter()
    for archive in todo:
        fetched = [job.downloads / f'{archive.name}.part', *(folder / archive.name for folder in job.folders)]
        space[job.downloads] += max(archive.size - max(0, *map(file_size, fetched)), 0)
        places = [job.root / place for place in archive.places.values()]
        have = sum(path.stat().st_size for place in places for path in place.glob('**/*') if path.is_file())
        space[places[0]] += max((archive.unpacked or archive.size) - have, 0)
    return dict(space)


def _install(job: Job, archive: Archive) -> list[str]:
    """Fetch an archive unless it is there, and unpack it; return what the user has to fetch."""
    if not archive.urls:
        members, absent = unpacked_files(archive.places, job.folders)
        if not absent:
            put(members, archive.places, job.root, job.temporary(archive))
            return []
    path = _have(job, archive)
    if path is None and not archive.urls:
        packed = '' if archive.name.endswith('.rar') else f'{archive.name} or '  # which Python cannot unpack
        return [f'{packed}{what}' for what in absent]
    unpack(path or fetch(archive.remote, job.downloads), archive.places, job.root, job.temporary(archive))
    return []


def _have(job: Job, archive: Archive) -> Path | None:
    for path in (folder / archive.name for folder in job.folders if (folder / archive.name).is_file()):
        fault = damage(path, archive.remote)
        if not fault:
            return path
        if not archive.urls:
            ways = 'fetch it again, or unpack it with another program and name the folder with --from'
            raise UserError(f'{path} cannot be used: {fault}; {ways}')
        log(f'{path} is damaged: {fault}; it is fetched again to {job.downloads}')
        if path.parent == job.downloads:  # that of the user stays
            path.unlink()
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the data set that ``argv`` names; return the exit status."""
    args = parse('prepare-data', argv)
    dataset, root, source = DATASETS[args.dataset], args.root.expanduser(), args.source and args.source.expanduser()
    if source and not source.is_dir():
        raise UserError(f'--from {args.source}: no such folder')
    if root.exists() and not root.is_dir():
        raise UserError(f'--root {args.root}: this is a file, not a folder')
    job = Job(dataset, root, source)
    if args.source and not dataset.archives:
        steps = '\n'.join(_manual_steps(job))
        raise UserError(f'--from {args.source}: {args.dataset} cannot be prepared from a folder; {steps}')
    print(f'{dataset.title}\nterms of use: {dataset.home}')
    prepare(job)
    data = root / dataset.data
    print(f'complete in {data}:')
    print('\n'.join(dict.fromkeys(f'  {check.count:>9,}  {check.source}' for check in dataset.checks)))
    print(f'use it with: {f"mmres2net train {dataset.config} " if dataset.config else ""}--data {data}')
    return 0

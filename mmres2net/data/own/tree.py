"""The files below a folder: which belong together by their names, and which train and which evaluate."""

import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

from mmres2net.data.formats.base import Finding, Sample, read_text, regular_file
from mmres2net.data.own.data_file import Spec
from mmres2net.errors import UserError
from mmres2net.files import IMAGE_SUFFIXES
from mmres2net.text import join_some

SPLIT_WORDS = {
    'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val',
    'eval': 'val', 'evaluation': 'val', 'test': 'test', 'testing': 'test',
}  # fmt: skip
SUFFIX = re.compile(r'(annot|annotations|masks?|labels?|images?|imgs?|set|data|gt)$')  # of words such as trainannot
MASK_WORDS = {
    'mask', 'masks', 'label', 'labels', 'gt', 'groundtruth', 'truth', 'seg', 'segmentation', 'annotation',
    'annotations', 'ann', 'anno', 'labelids', 'indexlabel',
}  # fmt: skip
SKIPPED = {'__macosx', 'work_dirs', 'segmentationobject'}  # folders of archives, runs, and numbers of objects
# A line of YOLO, maybe after a byte order mark
LABEL = re.compile(rb'(\xef\xbb\xbf)?\s*\d+(\.0*)?([ \t]+-?[\d.]+(e[-+]?\d+)?){4,}\s*(\n|$)', re.IGNORECASE)
Samples = dict[str | None, list[Sample]]  # by split; None: no split is told
Findings = dict[str | None, list[Finding]]
RUN_FILES = {'last_checkpoint', 'standard.json'}  # of runs, which may be below the folder of the data
_SUFFIXES = (*IMAGE_SUFFIXES, '.txt', '.xml', '.json')


class AmbiguousError(UserError):
    """Data that can be read in more than one way; ``options`` are what a data file can hold, by key."""

    def __init__(self, message: str, **options: Sequence[str]) -> None:
        super().__init__(message)
        self.options = options


@dataclass(frozen=True)
class Tree:
    """What is known of own data before they are read."""

    spec: Spec
    files: tuple[str, ...]  # below spec.root: relative paths with /, sorted; hidden ones are left out
    notes: list[str] = field(default_factory=list)  # what is recognized and what is left out; readers add to them

    @cached_property
    def images(self) -> 'Index':
        """The image files."""
        return Index(self.ending(*IMAGE_SUFFIXES))

    def note(self, count: int, text: str) -> None:
        """Add a note on ``count`` files or objects, if there are any."""
        self.notes.extend([f'{count:,} {text}'] if count else [])

    def ending(self, *suffixes: str) -> list[str]:
        """Return the files that end in one of ``suffixes`` (lower case), whatever their case."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.spec.root, name)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a text file that are not empty, without blanks around them."""
        return [line.strip() for line in read_text(self.path(name), 2**28).splitlines() if line.strip()]

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file; none of one that cannot be read."""
        with suppress(OSError, ValueError), open(regular_file(self.path(name)), 'rb') as file:
            return file.read(4096)
        return b''

    # Splits: by lists, by the names of folders, or by a share drawn with a seed

    def by_split(self, prefer: str, annotated: Mapping[str, str]) -> tuple[dict[str | None, list[str]], Findings]:
        """Return the images of each split, and a finding for each name in a list that is not there.

        The places in a data file count, else lists of images in ``annotated``, first those in a folder ``prefer``, else
        the names of folders; None has the images that none of these names.
        """
        places = self.spec.places or self._lists(prefer, annotated)
        images: dict[str | None, list[str]] = defaultdict(list)
        findings: Findings = defaultdict(list)
        for name in () if places else self.images.names:
            images[split_of(folder_of(name))].append(name)
        for part, place in ((part, place) for part, named in places.items() for place in named):
            if place.lower().endswith('.txt'):
                found, missing = self.listed(place)
                images[part] += found
                findings[part] += [Finding('missing image', self.path(place), name) for name in missing]
            else:
                prefix = '' if place == '.' else f'{place}/'
                images[part] += [name for name in self.images.names if name.startswith(prefix)]
        if places and not self.spec.places:
            rest = len(annotated.keys() - {name for names in images.values() for name in names})
            left_out = f' {rest:,} annotated images are in none of these lists, and are left out.' if rest else ''
            used = ', '.join(place for named in places.values() for place in named)
            self.notes.append(f'The splits are those of {used}.{left_out}')
        return {part: list(dict.fromkeys(names)) for part, names in images.items()}, findings

    def _lists(self, prefer: str, annotated: Mapping[str, str]) -> dict[str, list[str]]:
        """Return the lists of images by split: files named train.txt, val.txt, ... in the folder that is preferred."""
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in self.ending('.txt'):
            word = re.sub(r'[\d_-]+$', '', stem_of(name))
            if (word in SPLIT_WORDS or word == 'trainval') and not LABEL.match(self.head(name)):
                found[folder_of(name).rpartition('/')[2].lower()][SPLIT_WORDS.get(word, word)].append(name)
        for leaf in sorted(found, key=lambda leaf: (leaf != prefer, leaf != 'main', leaf)):
            lists = found[leaf]
            if any(image in annotated for names in lists.values() for image in self.listed(names[0])[0]):
                both = lists.pop('trainval', None)
                return dict(lists) if both is None or 'train' in lists else {'train': both, **lists}
        return {}

    def listed(self, place: str) -> tuple[list[str], list[str]]:
        """Return the images that a list names, and the names that stand for no image."""
        lines = self.lines(place)
        found = self.images.locate(lines, place)
        if not any(found):  # as IMAGE MASK, or NAME 1
            found = self.images.locate([line.split()[0] for line in lines], place)
        return [name for name in found if name], [line for line, name in zip(lines, found, strict=True) if not name]

    def within(self, files: Sequence[str]) -> list[str]:
        """Return those of ``files`` that are in folders or lists of the data file; all of them where none is."""
        places = [place for named in self.spec.places.values() for place in named]
        folders = tuple(f'{place}/' for place in places if place != '.' and os.path.isdir(self.path(place)))
        kept = {n for place in places if place.lower().endswith('.txt') for n in self.listed(place)[0]}
        return [name for name in files if name in kept or name.startswith(folders)] or list(files)

    def complete(self, samples: Samples, *, by_class: bool) -> dict[str, list[Sample]]:
        """Return the samples of the splits; without a validation set, a share of the training images becomes one."""
        samples = {part: found for part, found in samples.items() if found}
        rest = samples.pop(None, [])
        if 'train' in samples:
            self.note(len(rest), 'images are in no split and are left out.')
        elif rest:
            samples['train'] = rest
        else:
            raise UserError(f'{self.spec.root}: there are no annotated images for training')
        if 'val' not in samples:
            total, chosen = len(samples['train']), self._draw(samples['train'], by_class)
            samples['val'] = [sample for sample in samples['train'] if sample.image in chosen]
            samples['train'] = [sample for sample in samples['train'] if sample.image not in chosen]
            drawn = f'{len(samples["val"]):,} of {total:,} training images are drawn for it (seed {self.spec.seed})'
            self.notes.append(f'There is no validation set: {drawn}.')
        if 'test' not in samples:
            self.notes.append('There is no test set: validation images stand for it.')
        return {part: samples[part] for part in ('train', 'val', 'test') if part in samples}

    def _draw(self, samples: Sequence[Sample], by_class: bool) -> set[str]:
        strata: dict[str, list[str]] = defaultdict(list)
        for sample in samples:
            strata[str(sample.parse()[1][0].label) if by_class else ''].append(sample.image)
        chosen: set[str] = set()
        for name, images in strata.items():
            images.sort()
            random.Random(f'{self.spec.seed} {name}').shuffle(images)
            wanted = max(round(self.spec.val_fraction * len(images)), 1)
            chosen.update(images[: min(wanted, len(images) - 1)])
        if not chosen:
            where = f'{self.spec.root}: {len(samples)} image(s) cannot be divided into training and validation'
            raise UserError(f'{where}; add images, or name train and val in a data file')
        return chosen


def read_tree(spec: Spec) -> Tree:
    """Return the files below ``spec.root``, those behind links to folders included; nothing is opened."""
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise UserError(f'{error.filename or spec.root} cannot be read: {error.strerror or error}') from error

    for place, folders, names in os.walk(spec.root, followlinks=True, onerror=fail):
        real, is_run = Path(place).resolve(), place != str(spec.root) and bool(RUN_FILES & {*names})
        above = {real, *real.parents}  # a link to one of them would be followed without end
        folders[:] = [n for n in _shown(folders) if not is_run and Path(place, n).resolve() not in above]
        names = [] if is_run else names
        inside = '' if place == str(spec.root) else f'{os.path.relpath(place, spec.root)}/'
        names = [inside + name for name in _shown(names) if os.path.isfile(os.path.join(place, name))]
        if odd := next((name for name in names if re.search('[\t\r\n\ud800-\udfff]', name)), None):
            raise UserError(f'{place}: the name {odd!r} is not plain UTF-8; rename it')
        found += names
    return Tree(spec, tuple(sorted(found)))


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith('.') and name.lower() not in SKIPPED]


def words_of(text: str) -> list[str]:
    """Return the runs of letters in a name, in lower case: ``['instances', 'train']`` of ``instances_train2017``."""
    return re.findall('[a-z]+', text.lower())


def mask_word(name: str) -> str:
    """Return the word at the end of a file's name if it says that it is a mask; else an empty text."""
    return next((word for word in words_of(stem_of(name))[-1:] if word in MASK_WORDS), '')


def split_of(name: str) -> str | None:
    """Return the split that a path tells, by the last part of it that tells one; None where none does."""
    for part in reversed(name.split('/')):
        found = {SPLIT_WORDS.get(SUFFIX.sub('', word)) for word in words_of(part)} - {None}
        if len(found) == 1:
            return found.pop()
    return None


def folder_of(name: str) -> str:
    """Return the folder part of a relative path; empty at the root."""
    return name.rpartition('/')[0]


def stem_of(name: str) -> str:
    """Return a file's name in lower case without folders and without suffixes of images and annotations."""
    stem = name.rpartition('/')[2].lower()
    while stem.endswith(_SUFFIXES) and stem.rpartition('.')[0]:
        stem = stem.rpartition('.')[0]
    return stem


def is_mask_name(name: str) -> bool:
    """Return whether a folder of an image, or the end of its name, says that it is a mask."""
    words = [*words_of(folder_of(name)), *words_of(stem_of(name))[-1:]]
    return any(word in MASK_WORDS or word.startswith('segmentation') for word in words)


class Index:
    """Files (relative paths) that are found by name; ``stem`` returns what has to be equal in two names."""

    def __init__(self, names: Iterable[str], stem: Callable[[str], str] = stem_of) -> None:
        self.names = tuple(names)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._by_stem[stem(name)].append(name)

    def locate(self, wanted: Sequence[str], near: str) -> list[str | None]:
        """Return the file that each of ``wanted`` stands for, else None; AmbiguousError: it stands for several files.

        Where no path is there, as many of its last folders count as some path has, since the first ones are often those
        of another machine. Of files of one name, the nearest to the file ``near`` that names them counts; another split
        only where all are of others.
        """
        paths = [[part for part in re.split(r'[/\\]', name.strip()) if part not in ('', '.', '..')] for name in wanted]
        for size, own in product(range(max(map(len, paths), default=0), 0, -1), (True, False)):
            fits = [self._fits(path[-size:]) for path in paths]
            found = [_nearest(names, near, split_of(near), own=own) for names in fits]
            if any(found):
                return found
        return [None] * len(wanted)

    def _fits(self, path: Sequence[str]) -> list[str]:
        if not path:
            return []
        folders, last = ''.join(f'/{part}' for part in path[:-1]), path[-1].lower()
        names = [name for name in self._by_stem.get(stem_of(last), ()) if f'/{folder_of(name)}'.endswith(folders)]
        return [name for name in names if not last.endswith(IMAGE_SUFFIXES) or name.lower().endswith(last)]

    def pair(self, others: Iterable[str], stem: Callable[[str], str] = stem_of) -> tuple[dict[str, str], list[str]]:
        """Return the annotation file of each file that has one, and the annotation files that belong to none.

        ``stem`` returns the part of an annotation file's name that tells its file. AmbiguousError: a file has two.
        """
        pairs: dict[str, str] = {}
        alone = []
        for other in others:
            name = _nearest(self._by_stem.get(stem(other), ()), other, split_of(folder_of(other)))
            if name is None:
                alone.append(other)
            elif name in pairs:
                raise AmbiguousError(f'{name} has two annotation files: {pairs[name]} and {other}')
            else:
                pairs[name] = other
        return pairs, alone


def _nearest(fits: Sequence[str], near: str, split: str | None, *, own: bool = True) -> str | None:
    """Return the nearest of ``fits`` to a file: of its split, with most folders of the same name, and no mask."""
    if own:
        fits = [name for name in fits if split is None or split_of(folder_of(name)) in (split, None)]
    if len(fits) > 1:
        folders = set(folder_of(near).lower().split('/'))
        ranks = {n: (split_of(folder_of(n)) == split, len(folders & {*folder_of(n).lower().split('/')})) for n in fits}
        fits = [name for name in fits if ranks[name] == max(ranks.values())]
        fits = [name for name in fits if not is_mask_name(name)] or fits
    if len(fits) > 1:
        raise AmbiguousError(f'{near} stands for {len(fits)} files: {join_some(fits)}')
    return fits[0] if fits else None

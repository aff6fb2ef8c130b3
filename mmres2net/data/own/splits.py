"""Which images train and which evaluate: by lists, by the names of folders, or by a share drawn with a seed."""

import os
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from tqdm import tqdm

from mmres2net.data.formats.base import Finding, Sample, read_text
from mmres2net.data.own.tree import SPLIT_WORDS, Tree, folder_of, split_of, stem_of
from mmres2net.environment import granted_cores
from mmres2net.errors import UserError

LABEL = re.compile(rb'\s*\d+(\.0*)?([ \t]+-?[\d.]+(e[-+]?\d+)?){4,}\s*(\n|$)', re.IGNORECASE)  # a line of YOLO
BLOCK = 2048  # items handed to the threads at once
T = TypeVar('T')
U = TypeVar('U')
Samples = dict[str | None, list[Sample]]  # by split; None: no split is told
Findings = dict[str | None, list[Finding]]


def text_lines(path: str) -> list[str]:
    """Return the lines of a text file that are not empty, without blanks around them."""
    return [line.strip() for line in read_text(path, 2**28).splitlines() if line.strip()]


def in_threads(
    function: Callable[[T], U], items: Sequence[T], text: str = 'reading', workers: int | None = None
) -> Iterator[U]:
    """Yield what ``function`` returns for each item, in order; progress is shown where stderr is a terminal.

    Without ``workers`` there is a thread for each core, at most 16.
    """
    with (
        ThreadPoolExecutor(workers or max(min(int(granted_cores()), 16), 1)) as pool,
        tqdm(total=len(items), desc=text, unit=' images', disable=not sys.stderr.isatty(), leave=False) as progress,
    ):
        for start in range(0, len(items), BLOCK):
            for result in pool.map(function, items[start : start + BLOCK]):
                yield result
                progress.update()


def by_split(tree: Tree, prefer: str, annotated: Mapping[str, str]) -> tuple[dict[str | None, list[str]], Findings]:
    """Return the images of each split, and a finding for each name in a list that is not there.

    The places in a data file count, else lists of images, else the names of folders; None has the images that none of
    these names. Lists in the folder ``prefer`` count before others, and only those of images in ``annotated``.
    """
    places = tree.spec.places or _lists(tree, prefer, annotated)
    images: dict[str | None, list[str]] = defaultdict(list)
    findings: Findings = defaultdict(list)
    for name in () if places else tree.images.names:
        images[split_of(folder_of(name))].append(name)
    for part, place in ((part, place) for part, named in places.items() for place in named):
        if place.lower().endswith('.txt'):
            found, missing = listed(tree, place)
            images[part] += found
            findings[part] += [Finding('missing image', tree.path(place), name) for name in missing]
        else:
            prefix = '' if place == '.' else f'{place}/'
            images[part] += [name for name in tree.images.names if name.startswith(prefix)]
    if places and not tree.spec.places:
        rest = len(annotated.keys() - {name for names in images.values() for name in names})
        left_out = f' {rest:,} annotated images are in none of these lists, and are left out.' if rest else ''
        used = ', '.join(place for named in places.values() for place in named)
        tree.notes.append(f'The splits are those of {used}.{left_out}')
    return {part: list(dict.fromkeys(names)) for part, names in images.items()}, findings


def _lists(tree: Tree, prefer: str, annotated: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the lists of images by split: files named train.txt, val.txt, ... in the folder that is preferred."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in tree.ending('.txt'):
        word = re.sub(r'[\d_-]+$', '', stem_of(name))
        if (word in SPLIT_WORDS or word == 'trainval') and not LABEL.match(tree.head(name)):
            found[folder_of(name).rpartition('/')[2].lower()][SPLIT_WORDS.get(word, word)].append(name)
    for leaf in sorted(found, key=lambda leaf: (leaf != prefer, leaf != 'main', leaf)):
        lists = found[leaf]
        if any(image in annotated for names in lists.values() for image in listed(tree, names[0])[0]):
            both = lists.pop('trainval', None)
            return dict(lists) if both is None or 'train' in lists else {'train': both, **lists}
    return {}


def listed(tree: Tree, place: str) -> tuple[list[str], list[str]]:
    """Return the images that a list names, and the names that stand for no image."""
    lines = text_lines(tree.path(place))
    found = tree.images.locate(lines, place)
    if not any(found):  # as IMAGE MASK, or NAME 1
        found = tree.images.locate([line.split()[0] for line in lines], place)
    return [name for name in found if name], [line for line, name in zip(lines, found, strict=True) if not name]


def within(tree: Tree, files: Sequence[str]) -> list[str]:
    """Return those of ``files`` that are in folders or lists of the data file; all of them where none is."""
    places = [place for named in tree.spec.places.values() for place in named]
    folders = tuple(f'{place}/' for place in places if place != '.' and os.path.isdir(tree.path(place)))
    kept = {n for place in places if place.lower().endswith('.txt') for n in listed(tree, place)[0]}
    return [name for name in files if name in kept or name.startswith(folders)] or list(files)


def complete(tree: Tree, samples: Samples, *, by_class: bool) -> dict[str, list[Sample]]:
    """Return the samples of the splits; without a validation set, a share of the training images becomes one."""
    samples = {part: found for part, found in samples.items() if found}
    rest = samples.pop(None, [])
    if 'train' in samples:
        tree.note(len(rest), 'images are in no split and are left out.')
    elif rest:
        samples['train'] = rest
    else:
        raise UserError(f'{tree.spec.root}: there are no annotated images for training')
    if 'val' not in samples:
        total, chosen = len(samples['train']), _draw(tree, samples['train'], by_class)
        samples['val'] = [sample for sample in samples['train'] if sample.image in chosen]
        samples['train'] = [sample for sample in samples['train'] if sample.image not in chosen]
        tree.notes.append(
            f'There is no validation set: {len(samples["val"]):,} of the {total:,} training images are drawn for it '
            f'(val_fraction {tree.spec.val_fraction:g}, seed {tree.spec.seed}); equal files stay together.'
        )
    if 'test' not in samples:
        tree.notes.append('There is no test set: validation images stand for it.')
    return {part: samples[part] for part in ('train', 'val', 'test') if part in samples}


def _draw(tree: Tree, samples: Sequence[Sample], by_class: bool) -> set[str]:
    """Return ``val_fraction`` of the images, of each class its share, but never a whole class."""
    equal: dict[object, list[Sample]] = defaultdict(list)
    for sample in samples:
        equal[_middle(sample.image)].append(sample)
    strata: dict[str, list[list[Sample]]] = defaultdict(list)
    for group in equal.values():
        strata[str(group[0].parse()[1][0].label) if by_class else ''].append(group)
    chosen: set[str] = set()
    for name in sorted(strata):
        groups = sorted(strata[name], key=lambda group: group[0].image)
        random.Random(f'{tree.spec.seed} {name}').shuffle(groups)
        wanted = max(round(tree.spec.val_fraction * sum(map(len, groups))), 1)
        for group in groups[:-1]:
            if wanted > 0:
                chosen.update(sample.image for sample in group)
                wanted -= len(group)
    if not chosen:
        raise UserError(
            f'{tree.spec.root}: {len(samples)} image(s) cannot be divided into training and validation; add images, or '
            'name train and val in a data file'
        )
    return chosen


def _middle(path: str) -> object:
    """Return the size of a file and some bytes of it; its path if it cannot be read."""
    with suppress(OSError), open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(size // 2)
        return size, hash(file.read(2**14))
    return path

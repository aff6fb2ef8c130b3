"""Which images train and which evaluate: by lists, by the names of folders, or by a share drawn with a seed."""

from __future__ import annotations

import hashlib
import os
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from mmres2net.data.formats.base import Finding, Sample, regular_file
from mmres2net.data.own.data_file import Spec
from mmres2net.data.own.tree import SPLIT_WORDS, Tree, folder_of, split_of, stem_of
from mmres2net.environment import granted_cores
from mmres2net.errors import UserError

LABEL = re.compile(rb'\s*\d+(\.0*)?([ \t]+-?[\d.]+(e[-+]?\d+)?){4,}\s*(\n|$)', re.IGNORECASE)  # a line of YOLO
T = TypeVar('T')
U = TypeVar('U')
BLOCK = 2048  # items handed to the threads at once
Images = dict[str | None, list[str]]
Findings = dict[str | None, list[Finding]]


def text_lines(path: str) -> list[str]:
    """Return the lines of a text file that are not empty, without blanks around them.

    Raises:
        UserError: It is no text in UTF-8.
    """
    try:
        text = Path(regular_file(path, 2**28)).read_bytes().decode('utf-8-sig')
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read as text in UTF-8: {error}') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def head_of(path: str, size: int = 4096) -> bytes:
    """Return the first bytes of a file; none of one that cannot be read."""
    with suppress(OSError, ValueError), open(regular_file(path), 'rb') as file:
        return file.read(size)
    return b''


def by_split(
    tree: Tree, spec: Spec, prefer: str, annotated: Container[str], notes: list[str]
) -> tuple[Images, Findings]:
    """Return the images of each split, and a finding for each name in a list that is not there.

    The places in a data file count, else lists of images, else the names of folders; None has the images that none of
    these names.

    Args:
        tree: All files.
        spec: What the data file says.
        prefer: The folder of lists that counts before others.
        annotated: The images that have annotations: lists of others do not count.
        notes: Receives what was used, and what was left out.
    """
    places = spec.places or _lists(tree, prefer, annotated)
    images: Images = defaultdict(list)
    findings: Findings = defaultdict(list)
    if not places:
        for name in tree.images.names:
            images[split_of(folder_of(name))].append(name)
        return dict(images), findings
    for part, named in places.items():
        for place in named:
            if place.lower().endswith('.txt'):
                found, missing = _listed(tree, place)
                images[part] += found
                findings[part] += [Finding('missing image', tree.path(place), name) for name in missing]
            else:
                prefix = '' if place == '.' else f'{place}/'
                images[part] += [name for name in tree.images.names if name.startswith(prefix)]
    notes += (
        [] if spec.places else [f'The splits are those of {", ".join(p for named in places.values() for p in named)}.']
    )
    return {part: list(dict.fromkeys(names)) for part, names in images.items()}, findings


def _lists(tree: Tree, prefer: str, annotated: Container[str]) -> dict[str, list[str]]:
    """Return the lists of images by split: files named train.txt, val.txt, ... in the folder that is preferred."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in tree.ending('.txt'):
        word = re.sub(r'[\d_-]+$', '', stem_of(name))
        if (word in SPLIT_WORDS or word == 'trainval') and not LABEL.match(head_of(tree.path(name))):
            found[folder_of(name).rpartition('/')[2].lower()][SPLIT_WORDS.get(word, word)].append(name)
    fitting = {
        leaf: lists
        for leaf, lists in found.items()
        if any(name in annotated for n in lists.values() for name in _listed(tree, n[0])[0])
    }
    if not fitting:
        return {}
    lists = fitting[min(fitting, key=lambda leaf: (leaf != prefer, leaf != 'main', leaf))]
    both = lists.pop('trainval', None)
    return dict(lists) if both is None or 'train' in lists else {'train': both, **lists}


def _listed(tree: Tree, place: str) -> tuple[list[str], list[str]]:
    """Return the images that a list names, and the names that stand for no image."""
    lines = text_lines(tree.path(place))
    found = tree.images.locate(lines, place)
    if not any(found):  # as IMAGE MASK, or NAME 1
        found = tree.images.locate([line.split()[0] for line in lines], place)
    return [name for name in found if name], [line for line, name in zip(lines, found, strict=True) if not name]


def complete(
    samples: dict[str | None, list[Sample]], labels: Callable[[Sample], Sequence[str]], spec: Spec, notes: list[str]
) -> dict[str, list[Sample]]:
    """Return the samples of the splits; without a validation set, a share of the training images becomes one.

    Args:
        samples: By the split that is told; None: none is.
        labels: Returns the class by which the share is drawn; nothing where it is drawn from all alike.
        spec: Share and seed.
        notes: Receives how the splits were made.

    Raises:
        UserError: No training images, or too few of them.
    """
    samples = {part: found for part, found in samples.items() if found}
    rest = samples.pop(None, [])
    if rest and 'train' not in samples:
        samples['train'] = rest
    elif rest:
        notes.append(f'{len(rest):,} images are in no split and are left out.')
    if 'train' not in samples:
        raise UserError(f'{spec.root}: there are no annotated images for training')
    parts = {str(part): found for part, found in samples.items()}
    if 'val' not in parts:
        parts['train'], parts['val'] = _divide(parts['train'], labels, spec)
        total = len(parts['train']) + len(parts['val'])
        notes.append(
            f'There is no validation set: {len(parts["val"]):,} of the {total:,} training images are drawn for it '
            f'(val_fraction {spec.val_fraction:g}, seed {spec.seed}); equal files stay together.'
        )
    if 'test' not in parts:
        notes.append('There is no test set: validation images stand for it.')
    return {part: parts[part] for part in ('train', 'val', 'test') if part in parts}


def _divide(
    samples: Sequence[Sample], labels: Callable[[Sample], Sequence[str]], spec: Spec
) -> tuple[list[Sample], list[Sample]]:
    """Return two lists: class by class, ``val_fraction`` of the samples go into the second, one class at least."""
    strata: dict[str, list[list[Sample]]] = defaultdict(list)
    for group in _equal_files(samples):
        strata[next(iter(labels(group[0])), '')].append(group)
    chosen: set[str] = set()
    for name in sorted(strata):
        groups = sorted(strata[name], key=lambda group: group[0].image)
        random.Random(f'{spec.seed} {name}').shuffle(groups)
        wanted = max(round(spec.val_fraction * sum(map(len, groups))), 1)
        for group in groups[:-1]:
            if wanted <= 0:
                break
            chosen.update(sample.image for sample in group)
            wanted -= len(group)
    if not chosen:
        raise UserError(
            f'{spec.root}: {len(samples)} image(s) cannot be divided into training and validation; add images, or name '
            'train and val in a data file'
        )
    parts = ([s for s in samples if (s.image in chosen) == second] for second in (False, True))
    return next(parts), next(parts)


def _equal_files(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return the samples in groups of byte-equal images; only files of one size are read."""
    sizes = {sample.image: _size(sample.image) for sample in samples}
    often = Counter(sizes.values())
    groups: dict[object, list[Sample]] = defaultdict(list)
    for sample in samples:
        size = sizes[sample.image]
        unique = size < 0 or often[size] == 1
        groups[sample.image if unique else (size, _digest(sample.image))].append(sample)
    return list(groups.values())


def _size(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_size
    return -1


def _digest(path: str) -> bytes:
    with suppress(OSError), open(path, 'rb') as file:
        return hashlib.blake2b(file.read(), digest_size=16).digest()
    return path.encode(errors='surrogateescape')


def in_threads(function: Callable[[T], U], items: Sequence[T], text: str = 'reading') -> Iterator[U]:
    """Yield what ``function`` returns for each item, in order; progress is shown where stderr is a terminal."""
    workers = max(min(int(granted_cores()), 16), 1)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(items), desc=text, unit=' images', disable=not sys.stderr.isatty(), leave=False) as progress,
    ):
        for start in range(0, len(items), BLOCK):
            for result in pool.map(function, items[start : start + BLOCK]):
                yield result
                progress.update()

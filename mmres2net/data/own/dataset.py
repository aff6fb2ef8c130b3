"""A data set of the user: recognized in a folder, described by a data file, and what is known of it.

The layouts are those of docs/own-data.md.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from mmres2net.data.formats.base import Sample, Split, similar_class
from mmres2net.data.formats.masks import IGNORED
from mmres2net.data.own.data_file import FORMATS, Spec, is_data_file, read_data_file
from mmres2net.data.own.images import (
    class_folders,
    find_masks,
    load_folders,
    load_masks,
    spread,
)
from mmres2net.data.own.source import XML, Source, coco_files, label_files, load_coco, load_voc, load_yolo
from mmres2net.data.own.splits import LABEL, complete, head_of
from mmres2net.data.own.standard import write_standard
from mmres2net.data.own.tree import AmbiguousError, Tree, read_tree, stem_of
from mmres2net.drawing import BLACK, Color, class_color
from mmres2net.errors import UserError
from mmres2net.text import join_some

__all__ = ['OwnData', 'OwnSplit', 'is_own_data', 'recognize', 'write_standard']
BOXES = ('coco', 'voc', 'yolo')
FORMATS_OF = {
    'detection': BOXES, 'instances': BOXES, 'segmentation': ('masks',), 'classification': ('folders',),
}  # fmt: skip
TASKS = tuple(FORMATS_OF)
LOADERS: dict[str, Callable[[Tree, Spec, list[str]], Source]] = {
    'coco': load_coco, 'voc': load_voc, 'yolo': load_yolo, 'masks': load_masks, 'folders': load_folders,
}  # fmt: skip
LISTED_CLASSES = 20


@dataclass(frozen=True)
class OwnSplit:
    """One split of own data.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        images: How many images it has, those without annotations included.
        annotated: How many of them have an object or a class; 0 for masks.
        counts: Annotations by class name, every class in label order, also those without any: objects for detection,
            images for classification, pixels for segmentation (0 until :func:`write_standard` has read the masks).
        annotation: The file in standard form, once it is written; before that the source.
        source: The split as the reader of its format gives it, for checks, drawing and conversion.
    """

    name: str
    images: int
    annotated: int
    counts: Mapping[str, int]
    annotation: Path
    source: Split = field(repr=False, compare=False)


@dataclass(frozen=True)
class OwnData:
    """Own data: where they are, what they are, their classes and splits.

    Attributes:
        path: What the user named: a folder, a data file or an annotation file.
        format: ``coco``, ``voc``, ``yolo``, ``folders`` or ``masks``.
        task: ``detection``, ``instances`` (boxes and masks), ``segmentation`` (also salient objects: two classes, the
            first is the background) or ``classification``.
        root: The folder that the image paths in the standard form are relative to.
        classes: Names in label order.
        palette: A color for each class.
        splits: By name: ``train`` and ``val`` always, ``test`` where there is one.
        notes: What was recognized, how it was split and what was left out, in sentences.
    """

    path: Path
    format: str
    task: str
    root: Path
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    splits: Mapping[str, OwnSplit]
    notes: tuple[str, ...]

    def as_text(self) -> str:
        """Return what was recognized for a terminal: the notes, and a line of counts by class for each split."""
        return '\n'.join([*self.notes, *map(_line, self.splits.values())])


def _line(split: OwnSplit) -> str:
    total = max(sum(split.counts.values()), 1)
    shares = split.source.unit == 'pixels'
    counts = [f'{name} {100 * n / total:.1f}%' if shares else f'{name} {n:,}' for name, n in split.counts.items()]
    return f'{split.name}: {split.images:,} images; {split.source.unit}: {join_some(counts, limit=LISTED_CLASSES)}'


def recognize(path: str | Path, *, task: str | None = None, seed: int = 0) -> OwnData:
    """Recognize the data set in a folder, behind a data file or in a COCO file.

    Args:
        path: A folder, a data file (YAML; see :mod:`mmres2net.data.own.data_file`) or a COCO file (JSON).
        task: What the data are wanted for, one of :data:`TASKS`: it decides where a folder holds annotations for
            several. ``detection`` takes data of instances. None: whatever the folder holds.
        seed: Of the split where there is no validation set; a data file may name another.

    Raises:
        UserError: Nothing, or more than one thing, is recognized, or nothing for ``task``. The message shows the data
            file to write, filled in as far as it is known.
    """
    spec = _spec(Path(os.path.abspath(Path(path).expanduser())))
    spec = replace(spec, seed=seed) if spec.seed is None else spec
    tree = read_tree(spec.root)
    notes: list[str] = []
    name = spec.format
    try:
        name = name or _recognize_format(tree, spec, task)
        source = LOADERS[name](tree, spec, notes)
    except AmbiguousError as error:
        raise UserError(
            f'{path}: {error}.\nWrite a data file such as data.yaml and name it instead; lines to adapt:\n'
            f'{spec.as_yaml({"format": [name] if name else FORMATS, **error.options})}'
        ) from error
    if task is not None and name not in FORMATS_OF[task]:
        raise UserError(f'{path} holds {source.kind} for {source.task}; {task} needs others')
    if task == 'instances' and source.task != 'instances':
        raise UserError(f'{path}: not all objects have masks, only boxes; use a config that detects boxes')
    faults = [f'{one.kind}: {one.where} {one.what}' for found in source.findings.values() for one in found]
    if faults and not any(source.samples.values()):
        raise UserError(f'{path}: no annotated image can be read: {join_some(faults)}')
    by_class = source.labels if source.unit == 'images' else lambda sample: ()
    parts = complete(source.samples, by_class, spec, notes)
    classes = _classes(source, spec, parts, notes)
    splits = _own_splits(parts, source, classes, spec)
    colors = spec.palette or source.palette
    palette = [BLACK if n == 'background' and not colors else class_color(i, colors) for i, n in enumerate(classes)]
    first = f'{path} holds {source.kind} for {source.task}: {len(classes)} classes, {join_some(classes)}.'
    task = 'detection' if task == 'detection' else source.task
    return OwnData(Path(path), name, task, spec.root, classes, tuple(palette), splits, (first, *notes))


def is_own_data(path: str | Path) -> bool:
    """Return whether ``path`` is a folder, a COCO file or a data file, and not a config."""
    path = Path(path).expanduser()
    if path.suffix.lower() == '.json':
        return path.is_file() and bool(coco_files(Tree(path.parent, (path.name,))))
    return path.is_dir() or (path.suffix.lower() in ('.yaml', '.yml') and path.is_file() and is_data_file(path))


def _spec(path: Path) -> Spec:
    """Return what is known of the data before their files are listed."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in ('.yaml', '.yml'))
        files = [file for file in files if file.stem == 'data' or is_data_file(file)]
        if len(files) > 1:
            raise UserError(f'{path} has {len(files)} data files, {join_some(f.name for f in files)}; name one of them')
        return read_data_file(files[0]) if files else Spec(path)
    if not path.exists():
        raise UserError(f'{path}: no such file or folder')
    if path.suffix.lower() in ('.yaml', '.yml'):
        return read_data_file(path)
    if path.suffix.lower() != '.json':
        raise UserError(f'{path} is no folder, no data file (.yaml) and no COCO file (.json); unpack archives')
    root = path.parent if read_tree(path.parent).images.names else path.parent.parent
    return Spec(root, 'coco', {'train': [path.relative_to(root).as_posix()]})


def _recognize_format(tree: Tree, spec: Spec, task: str | None) -> str:
    """Return the format of the files in a tree that serve ``task``.

    Raises:
        UserError: None is recognized.
        AmbiguousError: Several are.
    """
    tests: dict[str, Callable[[], object]] = {
        'coco': lambda: coco_files(tree),
        'voc': lambda: any(XML.search(head_of(tree.path(name))) for name in spread(tree.ending('.xml'))),
        'yolo': lambda: _has_labels(tree),
        'masks': lambda: _has_masks(tree),
    }
    wanted = FORMATS_OF.get(task or '', FORMATS)
    annotated = [name for name, test in tests.items() if test()]
    found = [name for name in annotated if name in wanted]
    if not annotated and 'folders' in wanted and class_folders(tree, spec):  # any folders could be those of classes
        return 'folders'
    if len(found) > 1:
        raise AmbiguousError(f'it holds data of several formats: {" and ".join(found)}', format=found)
    if not found:
        hint = f'; it holds {join_some(annotated)}, which is not for {task}' if annotated else ''
        raise UserError(
            f'{spec.root}: no annotations are recognized among {len(tree.files):,} files, '
            f'{len(tree.images.names):,} of them images{hint}. Recognized are COCO, VOC and YOLO annotations, images '
            'with masks, and folders of two classes or more'
        )
    return found[0]


def _has_masks(tree: Tree) -> bool:
    try:
        return bool(find_masks(tree, tree.images.names))
    except AmbiguousError:
        return True


def _has_labels(tree: Tree) -> bool:
    stems = {stem_of(name) for name in tree.images.names}
    heads = [head_of(tree.path(name)) for name in spread([n for n in label_files(tree) if stem_of(n) in stems])]
    filled = [head for head in heads if head.strip()]
    return sum(bool(LABEL.match(head)) for head in filled) > len(filled) / 2


def _classes(source: Source, spec: Spec, parts: Mapping[str, Sequence[Sample]], notes: list[str]) -> tuple[str, ...]:
    """Return the classes in label order.

    Raises:
        UserError: There are none, or some are spelled almost alike.
    """
    if source.classes and not spec.classes:
        return tuple(source.classes)
    counts = Counter(label for samples in parts.values() for sample in samples for label in source.labels(sample))
    classes = tuple(source.classes or sorted(counts))
    if not classes or (counts and not any(counts[name] for name in classes)):
        raise UserError(
            f'{spec.root}: no object is of a class; the annotations have {join_some(sorted(counts)) or "none"}'
        )
    for name, count in sorted(counts.items()):
        close = similar_class(name, classes)
        if close:
            found = f'{count:,} objects are {name!r} and {counts[close]:,} are {close!r}'
            raise UserError(f'{spec.root}: {found}; write both alike')
    others = {name: count for name, count in counts.items() if name not in classes}
    if others:
        notes.append(
            f'{sum(others.values()):,} objects of classes that are not listed are left out: {join_some(others)}.'
        )
    return classes


def _own_splits(
    parts: Mapping[str, Sequence[Sample]], source: Source, classes: tuple[str, ...], spec: Spec
) -> dict[str, OwnSplit]:
    splits: dict[str, OwnSplit] = {}
    for part, samples in parts.items():
        images = [sample.image for sample in samples]
        same = next((one for one in splits.values() if [s.image for s in one.source.samples] == images), None)
        if same:  # one set that is read for both, which the check notes
            splits[part] = replace(same, name=part)
            same.source.part += f', {part}'
            continue
        file = source.files.get(part) or next(iter(source.files.values()), str(spec.root))
        split = Split(part, file, source.kind, {}, classes, source.unit, list(samples))
        split.findings = [*source.findings.get(part, ()), *(source.findings.get(None, ()) if part == 'train' else ())]
        split.parse = lambda sample: source.parse(sample, classes)
        split.read_mask, split.needs_masks = source.read_mask, source.task == 'instances'
        split.mask_values = {**dict(enumerate(classes)), IGNORED: ''} if source.unit == 'pixels' else {}
        labels = [source.labels(sample) for sample in samples]
        counts, annotated = Counter(chain.from_iterable(labels)), sum(map(bool, labels))
        splits[part] = OwnSplit(part, len(samples), annotated, {n: counts[n] for n in classes}, Path(file), split)
    return splits

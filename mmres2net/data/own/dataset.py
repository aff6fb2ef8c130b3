"""A data set of the user: recognized in a folder, described by a data file, and what is known of it.

The layouts are those of docs/own-data.md.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmres2net.data.formats.base import IGNORED, Sample, Split, similar_class
from mmres2net.data.own.boxes import XML, Source, coco_files, label_files, load_coco, load_voc, load_yolo
from mmres2net.data.own.data_file import FORMATS, Spec, is_data_file, read_data_file
from mmres2net.data.own.images import class_folders, find_masks, load_folders, load_masks, spread
from mmres2net.data.own.tree import LABEL, AmbiguousError, Tree, read_tree, stem_of
from mmres2net.drawing import BLACK, Color, class_color
from mmres2net.errors import UserError
from mmres2net.text import join_some


@dataclass(frozen=True)
class OwnSplit:
    """One split of own data: ``train``, ``val`` or ``test``."""

    name: str
    images: int  # those without annotations included
    annotated: int  # images with an object or a class; 0 for masks
    counts: Mapping[str, int]  # by class, in label order: objects, images, or pixels once write_standard has read them
    annotation: Path  # the file in standard form, once it is written; before that the source
    source: Split = field(repr=False, compare=False)  # as the reader of its format gives it


@dataclass(frozen=True)
class OwnData:
    """Own data: where they are, what they are, their classes and splits."""

    path: Path  # what the user named: a folder, a data file or an annotation file
    format: str  # one of FORMATS
    task: str  # detection, instances (boxes and masks), segmentation (also salient objects) or classification
    root: Path  # the folder that the image paths in the standard form are relative to
    classes: tuple[str, ...]  # names in label order
    palette: tuple[Color, ...]  # a color for each class
    splits: Mapping[str, OwnSplit]  # 'train' and 'val' always, 'test' where there is one
    notes: tuple[str, ...]  # what was recognized, how it was split and what was left out, in sentences

    def as_text(self) -> str:
        """Return what was recognized for a terminal: the notes, and a line of counts by class for each split."""
        lines = list(self.notes)
        for name, split in self.splits.items():
            unit, total = split.source.unit, max(sum(split.counts.values()), 1)
            numbers = {n: f'{100 * v / total:.1f}%' if unit == 'pixels' else f'{v:,}' for n, v in split.counts.items()}
            counts = join_some((f'{label} {number}' for label, number in numbers.items()), limit=20)
            lines.append(f'{name}: {split.images:,} images; {unit}: {counts}')
        return '\n'.join(lines)


def _has_masks(tree: Tree) -> bool:
    with suppress(AmbiguousError):
        return bool(find_masks(tree, tree.images.names))
    return True


def _has_labels(tree: Tree) -> bool:
    stems = {stem_of(name) for name in tree.images.names}
    heads = map(tree.head, spread([name for name in label_files(tree) if stem_of(name) in stems]))
    filled = [head for head in heads if head.strip()]
    return sum(bool(LABEL.match(head)) for head in filled) > len(filled) / 2


BOXES = ('detection', 'instances')
# The tasks that a format serves, what tells it, and its reader. Any folders could be those of classes: they are last.
READERS: dict[str, tuple[Sequence[str], Callable[[Tree], object], Callable[[Tree], Source]]] = {
    'coco': (BOXES, coco_files, load_coco),
    'voc': (BOXES, lambda tree: any(XML.search(tree.head(n)) for n in spread(tree.ending('.xml'))), load_voc),
    'yolo': (BOXES, _has_labels, load_yolo),
    'masks': (['segmentation'], _has_masks, load_masks),
    'folders': (['classification'], class_folders, load_folders),
}


def recognize(path: str | Path, *, task: str | None = None, seed: int = 0) -> OwnData:
    """Recognize the data set in a folder, behind a data file (YAML) or in a COCO file (JSON).

    Args:
        path: The folder or file.
        task: One of :class:`OwnData`, or None: whatever the folder holds. ``detection`` takes data of instances.
        seed: Of the split where there is no validation set; a data file may name another.

    Raises:
        UserError: Nothing, or more than one thing, is recognized; it shows the data file to write.
    """
    spec = _spec(Path(os.path.abspath(Path(path).expanduser())))
    tree = read_tree(replace(spec, seed=seed) if spec.seed is None else spec)
    name = spec.format
    try:
        name = name or _recognize_format(tree, task)
        tasks, _, load = READERS[name]
        source = load(tree)
    except AmbiguousError as error:
        raise UserError(
            f'{path}: {error}.\nWrite a data file such as data.yaml and name it instead; lines to adapt:\n'
            f'{spec.as_yaml({"format": [name] if name else FORMATS, **error.options})}'
        ) from error
    if task is not None and task not in tasks:
        raise UserError(f'{path} holds {source.kind} for {source.task}; {task} needs others')
    if task == 'instances' and source.task != 'instances':
        raise UserError(f'{path}: not all objects have masks, only boxes; use a config that detects boxes')
    faults = [f'{one.kind}: {one.where}: {one.what}' for found in source.findings.values() for one in found]
    if faults and not any(source.samples.values()):
        raise UserError(f'{path}: no annotated image can be read: {join_some(faults)}')
    parts = tree.complete(source.samples, by_class=source.unit == 'images')
    classes = _classes(tree, source, parts)
    colors = spec.palette or source.palette
    palette = [BLACK if n == 'background' and not colors else class_color(i, colors) for i, n in enumerate(classes)]
    first = f'{path} holds {source.kind} for {source.task}: {len(classes)} classes, {join_some(classes)}.'
    task = 'detection' if task == 'detection' else source.task
    splits = _own_splits(parts, source, classes, spec.root)
    return OwnData(Path(path), name, task, spec.root, classes, tuple(palette), splits, (first, *tree.notes))


def is_own_data(path: str | Path) -> bool:
    """Return whether ``path`` is a folder, a COCO file or a data file, and not a config."""
    path = Path(path).expanduser()
    if path.suffix.lower() == '.json':
        return path.is_file() and bool(coco_files(Tree(Spec(path.parent), (path.name,))))
    return path.is_dir() or (path.suffix.lower() in ('.yaml', '.yml') and path.is_file() and is_data_file(path))


def _spec(path: Path) -> Spec:
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
    root = path.parent if read_tree(Spec(path.parent)).images.names else path.parent.parent
    return Spec(root, 'coco', {'train': [path.relative_to(root).as_posix()]})


def _recognize_format(tree: Tree, task: str | None) -> str:
    wanted = [name for name, (tasks, *_) in READERS.items() if task is None or task in tasks]
    there: list[str] = []
    for name, (_, is_in, _) in READERS.items():
        there += [name] if (name != 'folders' or not there) and is_in(tree) else []
    found = [name for name in there if name in wanted]
    if len(found) > 1:
        raise AmbiguousError(f'it holds data of several formats: {" and ".join(found)}', format=found)
    if not found:
        hint = f'; it holds {join_some(there)}, which is not for {task}' if there else ''
        known = 'COCO, VOC and YOLO annotations, images with masks, and folders of two classes or more'
        files = f'{len(tree.files):,} files, {len(tree.images.names):,} of them images{hint}'
        raise UserError(f'{tree.spec.root}: no annotations are recognized among {files}. Recognized are {known}')
    return found[0]


def _labels(sample: Sample) -> list[str]:
    return [one.label for one in sample.parse()[1] if one.label is not None]


def _classes(tree: Tree, source: Source, parts: Mapping[str, Sequence[Sample]]) -> tuple[str, ...]:
    counts = Counter(label for samples in parts.values() for sample in samples for label in _labels(sample))
    classes, root = tuple(source.classes or sorted(counts)), tree.spec.root
    # Where the data name their classes, training may have both a and A, but not the other splits one in its place.
    named = [None, 'train'] if source.classes and not tree.spec.classes else []
    learned = {label for part in named for sample in source.samples.get(part, ()) for label in _labels(sample)}
    if not classes or (counts and not any(counts[name] for name in classes)):
        faults = (one.what for samples in parts.values() for sample in samples for one in sample.parse()[2])
        raise UserError(f'{root}: no object is of a class; found {join_some(sorted(counts)) or next(faults, "none")}')
    for name, count in sorted(counts.items()):
        if name not in learned and (close := similar_class(name, sorted(learned) or classes)):
            found = f'{count:,} objects are {name!r} and {counts[close]:,} are {close!r}'
            raise UserError(f'{root}: {found}; write both alike')
    if others := {name: count for name, count in counts.items() if name not in classes}:
        total = f'{sum(others.values()):,} objects of classes that are not listed'
        tree.notes.append(f'{total} are left out: {join_some(others)}.')
    return classes


def _own_splits(
    parts: Mapping[str, list[Sample]], source: Source, classes: tuple[str, ...], root: Path
) -> dict[str, OwnSplit]:
    splits: dict[str, OwnSplit] = {}
    for part, samples in parts.items():
        images = [sample.image for sample in samples]
        same = next((one for one in splits.values() if [s.image for s in one.source.samples] == images), None)
        if same:  # one set that is read for both, which the check notes
            splits[part] = replace(same, name=part)
            same.source.part += f', {part}'
            continue
        file = source.files.get(part) or next(iter(source.files.values()), str(root))
        split = Split(part, file, source.kind, {}, classes, source.unit, samples)
        split.findings = [*source.findings.get(part, ()), *(source.findings.get(None, ()) if part == 'train' else ())]
        split.read_mask, split.needs_masks = source.read_mask, source.task == 'instances'
        split.mask_values = {**dict(enumerate(classes)), IGNORED: ''} if source.unit == 'pixels' else {}
        labels = [_labels(sample) for sample in samples]
        counts = Counter(label for found in labels for label in found)
        shown = {name: counts[name] for name in classes}
        splits[part] = OwnSplit(part, len(samples), sum(map(bool, labels)), shown, Path(file), split)
    return splits

"""Images in a folder per class, as mmpretrain reads them: it numbers the classes by the names of the folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmres2net.data.formats.base import Annotation, Finding, Parsed, Sample, Split, left_out
from mmres2net.data.layout import prefix_of
from mmres2net.errors import UserError
from mmres2net.text import join_some

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # mmpretrain's default


def image_folder(dataset: dict[str, Any]) -> Path | None:
    """Return the folder whose subfolders are the classes of an mmpretrain data set dict; None where a list names them.

    Args:
        dataset: A dict whose type is ``CustomDataset`` or derives from it.
    """
    root, split = Path(dataset.get('data_root') or ''), dataset.get('split')
    listed = dataset.get('ann_file') or (split and (root / 'meta' / f'{split}.txt').is_file())
    return None if listed or not dataset.get('with_label', True) else root / prefix_of(dataset)


def folder_names(folder: Path) -> list[str]:
    """Return the names of the class folders in ``folder``, in mmpretrain's order.

    Raises:
        UserError: There are none.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise UserError(f'{folder} cannot be read: {error.strerror or error}') from error
    if not names:
        raise UserError(
            f'{folder} has no folders: its images must be sorted into one folder per class, as {folder}/CLASS/*.jpg'
        )
    return names


def folder_fault(folder: Path, names: Sequence[str], classes: Sequence[str] | None, dataset: dict[str, Any]) -> str:
    """Return why ``classes`` cannot be those of the folders ``names``; empty if they can."""
    if classes is None:
        return ''
    if len(classes) != len(names):
        return (
            f'{folder} has {len(names)} folders ({join_some(names)}), one per class, but {dataset["type"]} has '
            f'{len(classes)} classes; for classes of your own add to --cfg-options, for each of train, val and test: '
            f'train_dataloader.dataset.type=CustomDataset, and model.head.num_classes={len(names)}'
        )
    if set(classes) == set(names) and list(classes) != list(names):
        return (
            f'{folder}: labels follow the order of the folders ({join_some(names)}), not that of metainfo.classes '
            f'({join_some(classes)}); sort metainfo.classes'
        )
    return ''


def read_folders(folder: Path, split: Split, classes: Sequence[str] | None) -> None:
    """Read the images of all class folders in ``folder`` into ``split``; without ``classes``, the folders name them.

    Raises:
        UserError: There are no folders.
    """
    names = folder_names(folder)
    fault = folder_fault(folder, names, classes, split.node)
    split.unit, split.classes = 'images', tuple(names if classes is None or fault else classes)
    split.findings += [Finding('classes do not fit', str(folder), fault)] if fault else []
    suffixes = tuple(sorted({suffix.lower() for suffix in split.node.get('extensions', SUFFIXES)}))
    empty = []
    for label, name in enumerate(names):
        images = list(_images(folder / name, suffixes))
        split.samples += [Sample(image, raw=label) for image in images]
        empty += [] if images else [name]
    if empty:
        what = (
            f'{len(empty)} of the {len(names)} class folders have no images: {join_some(empty)}; images end in '
            f'{", ".join(suffixes)}. Fill them, or remove the class from all splits'
        )
        split.findings.append(Finding('empty class folder', str(folder), what))
    note = left_out(folder, suffixes, ignore_case=True)
    split.findings += [note] if note else []
    split.parse = lambda sample: _parse_label(sample, split.classes)


def _images(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    for place, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(place, name) for name in sorted(names) if name.lower().endswith(suffixes))


def _parse_label(sample: Sample, classes: Sequence[str]) -> Parsed:
    return sample.size, [Annotation(sample.image, classes[sample.raw])], []


def check_same_folders(folders: Sequence[Path]) -> list[Finding]:
    """Return an error for each of ``folders`` whose subfolders are not those of the first: numbers are by name."""
    findings = []
    for other in folders[1:]:
        first, second = ({path.name for path in folder.iterdir() if path.is_dir()} for folder in (folders[0], other))
        if first and second and first != second:
            what = (
                f'{folders[0]} and {other} have different classes, and labels are the order of the folders: '
                f'only the first has {join_some(sorted(first - second)) or "none"}; '
                f'only the second has {join_some(sorted(second - first)) or "none"}; name the folders alike'
            )
            findings.append(Finding('classes do not fit', str(other), what))
    return findings

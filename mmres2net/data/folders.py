"""Data sets that keep a folder per class, as classifiers read them: what is wrong with the folders is found at once.

mmpretrain numbers the classes by the folders' names, each split for itself, and only warns of a folder without images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmres2net.data.layout import prefix_of
from mmres2net.errors import UserError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # of the host's image files, where none are named
SHOWN = 5  # how many of a kind an error lists


def image_folder(dataset: dict[str, Any]) -> Path | None:
    """Return the folder whose subfolders are the classes of an mmpretrain data set dict; None where a list names them.

    Args:
        dataset: A dict whose type is ``CustomDataset`` or derives from it.
    """
    root, split = Path(dataset.get('data_root') or ''), dataset.get('split')
    listed = dataset.get('ann_file') or (split and (root / 'meta' / f'{split}.txt').is_file())
    return None if listed or not dataset.get('with_label', True) else root / prefix_of(dataset)


def classes_in(folder: Path, dataset: dict[str, Any], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names of the images below ``folder``: ``classes``, or the folders' names where it is None.

    Raises:
        UserError: No folders, more or fewer than ``classes``, another order, or folders without images.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise UserError(
            f'{folder} has no folders: its images must be sorted into one folder a class, as in {folder}/CLASS/*.jpg'
        )
    if classes is not None and len(classes) != len(names):
        raise UserError(
            f'{folder} has {len(names)} folders ({_few(names)}), one a class, but {dataset["type"]} has {len(classes)} '
            'classes; for classes of your own add to --cfg-options, for each of train, val and test: '
            f'train_dataloader.dataset.type=CustomDataset, and model.head.num_classes={len(names)}'
        )
    if classes is not None and set(classes) == set(names) and list(classes) != names:
        raise UserError(
            f'{folder}: labels follow the order of the folders ({_few(names)}), not that of metainfo.classes '
            f'({_few(classes)}); sort metainfo.classes'
        )
    suffixes = tuple(suffix.lower() for suffix in dataset.get('extensions', SUFFIXES))
    empty = [name for name in names if not _has_images(folder / name, suffixes)]
    if empty:
        raise UserError(
            f'{len(empty)} of the {len(names)} class folders in {folder} have no images: {_few(empty)}; images end in '
            f'{", ".join(suffixes)}. Fill them, or take the class out of all splits'
        )
    return tuple(names) if classes is None else tuple(classes)


def check_same_folders(folders: Sequence[Path]) -> None:
    """Check that all ``folders`` have subfolders of the same names, so that a number means one class in all of them.

    Raises:
        UserError: One has others than the first.
    """
    for other in folders[1:]:
        first, second = ({entry.name for entry in folder.iterdir() if entry.is_dir()} for folder in (folders[0], other))
        if first != second:
            raise UserError(
                f'{folders[0]} and {other} have different classes, and labels are the order of the folders: '
                f'only the first has {_few(sorted(first - second)) or "none"}; '
                f'only the second has {_few(sorted(second - first)) or "none"}; name the folders alike'
            )


def _has_images(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return any(path.name.lower().endswith(suffixes) and path.is_file() for path in folder.rglob('*'))


def _few(names: Sequence[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more

"""What two data sets need besides their archives: VOC 2012 the masks of SBD, MSRA-B its lists of images.

The Semantic Boundaries Dataset (SBD; Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011) has class
masks of 11,355 images of VOC, in a train and a val split of its own, unrelated to VOC's. Nearly all work on VOC
segmentation trains on the union of both training sets, and tests on VOC's val:

    trainaug = SBD's train and val, and VOC's train, without VOC's val    10,582 images
    aug      = trainaug without VOC's train                                9,118 images

Where VOC has a mask itself, with its border of 255 around objects, that one is used.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from mmres2net.data.shapes_layout import voc_palette
from mmres2net.errors import UserError
from mmres2net.fetch.progress import progress_bar
from mmres2net.files import atomic_path, write_atomic

VOID, CLASSES = 255, 20
AGAIN = 'remove it and run the same command again'


def make_trainaug(root: Path) -> None:
    """Write VOC2012/SegmentationClassAug and the lists aug.txt and trainaug.txt; masks that are there stay.

    Args:
        root: The folder that holds ``VOCdevkit`` with ``VOC2012`` and ``VOCaug/dataset``.

    Raises:
        UserError: A mask of SBD cannot be read or does not fit its photograph.
        OSError: A file cannot be written; a later call continues.
    """
    voc, sbd = root / 'VOCdevkit' / 'VOC2012', root / 'VOCdevkit' / 'VOCaug' / 'dataset'
    lists, masks = voc / 'ImageSets' / 'Segmentation', voc / 'SegmentationClassAug'
    train, val = names_in(lists / 'train.txt'), names_in(lists / 'val.txt')
    aug = (names_in(sbd / 'train.txt') | names_in(sbd / 'val.txt')) - train - val
    masks.mkdir(exist_ok=True)
    todo = [name for name in sorted(train | val | aug) if not (masks / f'{name}.png').is_file()]
    with progress_bar('masks', len(todo), unit=' masks') as bar:
        for name in todo:
            with atomic_path(masks / f'{name}.png', sync=False) as path:
                if name in aug:
                    write_mask(path, read_mask(sbd / 'cls' / f'{name}.mat', voc / 'JPEGImages' / f'{name}.jpg'))
                else:
                    shutil.copyfile(voc / 'SegmentationClass' / f'{name}.png', path)
            bar.update()
    _write_list(lists / 'aug.txt', sorted(aug))
    _write_list(lists / 'trainaug.txt', sorted(train | aug))


def names_in(path: Path) -> set[str]:
    """Return the image names that a list has."""
    return set(path.read_text(encoding='utf-8', errors='replace').split())


def _write_list(path: Path, names: Iterable[str]) -> None:
    write_atomic(path, ''.join(f'{name}\n' for name in names))


def read_mask(mat: Path, photograph: Path) -> np.ndarray:
    """Return the class mask of one of SBD's .mat files: uint8 (H, W), 0 background, 1 to 20 VOC's classes.

    A UserError says that it cannot be read, holds something else, or has not the size of the photograph.
    """
    try:
        with mat.open('rb') as file:
            content = loadmat(file, variable_names=['GTcls'], squeeze_me=True, struct_as_record=False)
        mask = np.asarray(content['GTcls'].Segmentation)
    except Exception as error:  # loadmat has no error of its own: a damaged file raises whatever comes first
        raise UserError(f'{mat} is not a mask of SBD: {type(error).__name__}, {error}; {AGAIN}') from error
    known = (mask <= CLASSES) | (mask == VOID)
    if mask.ndim != 2 or not known.all():
        found = f'an array of shape {mask.shape} with values up to {mask.max(initial=0)}'
        raise UserError(f'{mat} holds {found}, not a mask with classes 0 to {CLASSES}; {AGAIN}')
    try:
        with Image.open(photograph) as image:
            width, height = image.size
    except OSError as error:
        raise UserError(f'{photograph} cannot be read: {error}; {AGAIN}') from error
    if mask.shape != (height, width):
        sizes = f'{mat} is {mask.shape[1]}x{mask.shape[0]}, but {photograph} is {width}x{height}'
        raise UserError(f'{sizes}: one of them is not the original; {AGAIN}')
    return mask.astype(np.uint8)


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a class mask, uint8 (H, W), as a PNG in VOC's colours."""
    image = Image.fromarray(mask)
    image.putpalette(voc_palette())
    image.save(path, format='png')


def write_lists(place: Path, folders: Sequence[Path]) -> list[str]:
    """Write lists of names without suffixes, from ``SPLIT.txt`` or ``SPLITImgSet.mat`` in one of ``folders``.

    Returns:
        What is missing.

    Raises:
        UserError: A list cannot be read.
        OSError: A list cannot be written.
    """
    absent = []
    for split in ('train', 'val', 'test'):
        files = [folder / name for folder in folders for name in (f'{split}.txt', f'{split}ImgSet.mat')]
        source = next((path for path in files if path.is_file()), None)
        if source is None:
            absent.append(f'{split}.txt or {split}ImgSet.mat')
        else:
            _write_list(place / f'{split}.txt', [Path(name).stem for name in _listed(source)])
    return absent


def _listed(path: Path) -> list[str]:
    try:
        if path.suffix != '.mat':  # some lists name the mask after the image
            return [line.split()[0] for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
        content = loadmat(str(path), squeeze_me=True)
        (names,) = (value for key, value in content.items() if not key.startswith('__'))
        return [str(name) for name in np.ravel(names)]  # of one cell, loadmat makes its content
    except Exception as error:  # as above
        raise UserError(f'{path} is not a list of images: {type(error).__name__}, {error}; fetch it again') from error

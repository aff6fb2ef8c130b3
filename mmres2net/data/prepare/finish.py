"""What two data sets need besides their archives: VOC 2012 the masks of SBD, MSRA-B its lists of images.

SBD (Semantic Boundaries Dataset; Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011) has masks of
the classes of 11,355 images of VOC, in splits of its own. Nearly all work on VOC segmentation trains on trainaug: SBD's
train and val, and VOC's train, without VOC's val, 10,582 images; aug is the 9,118 of them that are not in VOC's train.
Where VOC has a mask itself, with its border of 255 around objects, that one is used.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from mmres2net.data.shapes import voc_palette
from mmres2net.errors import UserError
from mmres2net.fetch.download import progress_bar
from mmres2net.files import atomic_path, write_atomic

VOID, CLASSES = 255, 20


def make_trainaug(root: Path) -> None:
    """Write SegmentationClassAug, aug.txt and trainaug.txt for ``root/VOCdevkit/VOC2012``; masks that are there stay.

    A UserError says that a mask of SBD, in ``root/VOCdevkit/VOCaug/dataset``, cannot be read or does not fit.
    """
    voc, sbd = root / 'VOCdevkit' / 'VOC2012', root / 'VOCdevkit' / 'VOCaug' / 'dataset'
    lists, masks = voc / 'ImageSets' / 'Segmentation', voc / 'SegmentationClassAug'
    train, val = names_in(lists / 'train.txt'), names_in(lists / 'val.txt')
    aug = (names_in(sbd / 'train.txt') | names_in(sbd / 'val.txt')) - train - val
    masks.mkdir(exist_ok=True)
    todo = [name for name in sorted(train | val | aug) if not (masks / f'{name}.png').is_file()]
    for name in progress_bar('masks', items=todo, unit=' masks'):
        with atomic_path(masks / f'{name}.png', sync=False) as path:
            if name in aug:
                mask = Image.fromarray(read_mask(sbd / 'cls' / f'{name}.mat', voc / 'JPEGImages' / f'{name}.jpg'))
                mask.putpalette(voc_palette())
                mask.save(path, format='png')
            else:
                shutil.copyfile(voc / 'SegmentationClass' / f'{name}.png', path)
    _write_list(lists / 'aug.txt', sorted(aug))
    _write_list(lists / 'trainaug.txt', sorted(train | aug))


def names_in(path: Path) -> set[str]:
    """Return the image names that a list has."""
    return set(path.read_text(encoding='utf-8', errors='replace').split())


def _write_list(path: Path, names: Iterable[str]) -> None:
    write_atomic(path, ''.join(f'{name}\n' for name in names))


def read_mask(mat: Path, photograph: Path) -> np.ndarray:
    """Return a class mask of SBD, uint8 (H, W): 0 background, 1 to 20 VOC's classes; a UserError if it is none."""
    try:
        with mat.open('rb') as file, Image.open(photograph) as image:
            content = loadmat(file, variable_names=['GTcls'], squeeze_me=True, struct_as_record=False)
            mask, (width, height) = np.asarray(content['GTcls'].Segmentation), image.size
        if mask.shape != (height, width) or not ((mask <= CLASSES) | (mask == VOID)).all():
            found = f'an array of shape {mask.shape} with values up to {mask.max(initial=0)}'
            raise ValueError(f'{found}, not classes 0 to {CLASSES} for {width}x{height} pixels')
    except Exception as error:  # loadmat has no error of its own: a damaged file raises whatever comes first
        ways = 'remove them and run the same command again'
        raise UserError(f'{mat} is not the mask of {photograph}: {type(error).__name__}, {error}; {ways}') from error
    return mask.astype(np.uint8)


def write_lists(place: Path, folders: Sequence[Path]) -> list[str]:
    """Write lists of names from ``SPLIT.txt`` or ``SPLITImgSet.mat`` in ``folders``; return what is missing."""
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
        (names,) = (value for key, value in loadmat(str(path), squeeze_me=True).items() if not key.startswith('__'))
        return [str(name) for name in np.ravel(names)]  # of one cell, loadmat makes its content
    except Exception as error:  # as above
        raise UserError(f'{path} is not a list of images: {type(error).__name__}, {error}; fetch it again') from error

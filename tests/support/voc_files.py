"""A VOC 2012 and an SBD of six images, in the layout and the file formats of the real ones."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_array

from mmres2net.data.shapes import voc_palette


def save_mat(path: Path, mask: np.ndarray) -> None:
    boundaries = np.empty((20, 1), dtype=object)
    boundaries[:, 0] = [csc_array(np.atleast_2d(mask == i + 1)) for i in range(20)]
    savemat(path, {'GTcls': {'Boundaries': boundaries, 'Segmentation': mask, 'CategoriesPresent': np.unique(mask)}})


def make_voc(root: Path) -> dict[str, np.ndarray]:
    """Write a VOC and an SBD that overlap in every way (VOC: a, b and c, d; SBD: b, c, e and f); return SBD's masks."""
    voc, sbd = root / 'VOCdevkit/VOC2012', root / 'VOCdevkit/VOCaug/dataset'
    for folder in (voc / 'JPEGImages', voc / 'SegmentationClass', voc / 'ImageSets/Segmentation', sbd / 'cls'):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    masks = {}
    for name in 'abcdef':
        Image.fromarray(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)).save(voc / f'JPEGImages/{name}.jpg')
        mask = rng.integers(0, 21, (8, 12), dtype=np.uint8)
        if name in 'abcd':
            official = mask.copy()
            official[0] = 255
            image = Image.fromarray(official)
            image.putpalette(voc_palette())
            image.save(voc / f'SegmentationClass/{name}.png')
        if name in 'bcef':
            masks[name] = mask
            save_mat(sbd / f'cls/{name}.mat', mask)
    lists = {voc / 'ImageSets/Segmentation/train.txt': 'ab', voc / 'ImageSets/Segmentation/val.txt': 'cd'}
    for path, names in {**lists, sbd / 'train.txt': 'bce', sbd / 'val.txt': 'f'}.items():
        path.write_text('\n'.join(names))
    return masks

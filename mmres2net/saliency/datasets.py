"""Data sets of salient objects: a folder of images, one of masks of the same names, and optionally a list of names.

A pixel is salient from a grey value of 128 on. PySODMetrics and common toolboxes binarize at more than 128; this
matters for PASCAL-S, whose grey values are shares of people who chose an object. Masks with grey edges are usual; a
file that would silently be read with another meaning is refused.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.registry import DATASETS, TRANSFORMS

THRESHOLD = 128
FAINT = 16  # below this, the values are class indices: one person of PASCAL-S's twelve gives 21
COLOURED = 16  # JPEG compression of grey images makes channels differ by less
ALPHA = ('LA', 'La', 'RGBA', 'RGBa', 'PA')
FOLDERS = {'img_path': 'images', 'seg_map_path': 'masks'}


@DATASETS.register_module()
class SaliencyDataset(BaseDataset):
    """Images with masks of their salient objects, as samples for mmseg's transforms.

    Other arguments are those of MMEngine's ``BaseDataset``. A UserError says that list, folder or images are missing.

    Args:
        dataset_name: Name of the data set; metrics are reported under it.
        ann_file: A list of names, one per line, with or without suffix; '': all images of the folder.
        data_prefix: ``img_path`` and ``seg_map_path``: other folders than ``images`` and ``masks``. Without
            ``seg_map_path`` samples have no masks.
        img_suffix: Suffix of images, in upper or lower case.
        seg_map_suffix: Suffix of masks.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': ('background', 'salient'), 'palette': [[0, 0, 0], [220, 60, 60]]}

    def __init__(
        self,
        *,
        dataset_name: str,
        data_root: str = '',
        ann_file: str = '',
        data_prefix: dict[str, str] | None = None,
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.png',
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self.dataset_name, self.img_suffix, self.seg_map_suffix = dataset_name, img_suffix, seg_map_suffix
        own = {'ann_file': ann_file, 'data_root': data_root, 'data_prefix': dict(data_prefix or FOLDERS)}
        super().__init__(**own, pipeline=list(pipeline), indices=indices, lazy_init=lazy_init)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each image, in the order of the list, or else sorted by name."""
        folder, suffix = Path(self.data_prefix.get('img_path', '')), self.img_suffix
        if not folder.is_dir():
            raise UserError(f'the images of {self.dataset_name} are missing: there is no folder {folder}')
        if self.ann_file:  # names with or without suffix, or those of the masks
            try:
                lines = Path(self.ann_file).read_text(encoding='utf-8').splitlines()
            except (OSError, ValueError) as error:
                raise UserError(f'{self.ann_file} is not a list of images: {error}') from error
            mask = self.seg_map_suffix
            bare = [n.removesuffix(suffix if n.endswith(suffix) else mask) for n in map(str.strip, lines) if n]
            names = [name + suffix for name in bare]
        else:  # archives made on a Mac have a hidden file beside every image
            shown = (path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith('.'))
            names = sorted(name for name in shown if name.lower().endswith(suffix.lower()))
        if not names:
            where = self.ann_file or f'{folder}: no file ends in {suffix!r}'
            raise UserError(f'the split of {self.dataset_name} is empty ({where})')
        masks, infos = self.data_prefix.get('seg_map_path'), []
        for name in names:
            info: dict[str, Any] = {'img_path': str(folder / name), 'dataset_name': self.dataset_name}
            info |= {'label_map': None, 'reduce_zero_label': False, 'seg_fields': []}
            if masks is not None:
                stem = name[: len(name) - len(self.img_suffix)]  # its suffix may be in upper case
                info['seg_map_path'] = str(Path(masks) / f'{stem}{self.seg_map_suffix}')
            infos.append(info)
        return infos

    def read_mask(self, path: str) -> np.ndarray:
        """Return the labels (H, W) of a mask file: 0 background, 1 salient; a UserError if it is no such mask."""
        return salient_pixels(path)


def salient_pixels(path: str) -> np.ndarray:
    """Return a mask file as (H, W) of uint8: 1 where its grey value is at least 128, else 0.

    Files may have one bit or 8 bits, a palette, or three equal channels; an opaque alpha channel is ignored. A
    UserError says what else there is; an OSError that the file is missing or not an image.
    """
    with Image.open(path) as image:
        values = _grey(image, path)
    brightest = int(values.max())
    if 0 < brightest < FAINT:
        what = f'{path}: the largest value is {brightest}, but a pixel is salient from {THRESHOLD} on'
        raise UserError(f'{what}; save masks with the values 0 and 255')
    return (values >= THRESHOLD).astype(np.uint8)


def _grey(image: Image.Image, path: str) -> np.ndarray:
    if image.mode in ('1', 'L') and 'transparency' not in image.info:
        return np.asarray(image.convert('L'))
    if image.mode not in ('1', 'L', 'RGB', 'P', *ALPHA):
        raise UserError(f'{path}: a mask of mode {image.mode}; save it with one channel of 8 bits, 0 and 255')
    has_alpha = image.mode in ALPHA or 'transparency' in image.info
    if has_alpha and np.asarray(image.convert('RGBA'))[..., 3].min() < 255:
        raise UserError(f'{path}: some pixels are transparent; save it without alpha channel')
    colours = np.asarray(image.convert('RGB'))
    if int((colours.max(2) - colours.min(2)).max()) > COLOURED:
        raise UserError(f'{path}: the mask has colours; save it in grey, with 255 on the salient object')
    return colours[..., 1]


@TRANSFORMS.register_module()
class LoadSaliencyMask(BaseTransform):
    """Load a mask file as labels: 1 where its grey value is at least 128 of 255, else 0.

    Put it after ``LoadImageFromFile``; in test pipelines also after ``Resize``, because predictions are compared at the
    size of the image file.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with ``gt_seg_map`` (H, W) of uint8 in ``seg_fields``; the given dict stays as it is.

        A UserError says that image or mask cannot be read, do not fit, or are not as :func:`salient_pixels` wants them.
        """
        if 'ori_shape' not in results:
            raise UserError('mmres2net.LoadSaliencyMask: no image is loaded; put it after LoadImageFromFile')
        image, path = results['img_path'], results['seg_map_path']
        try:
            mask = salient_pixels(path)
        except UserError:
            raise
        except Exception as error:  # a missing or damaged file, or an image of too many pixels
            raise UserError(f'{path}, the mask of {image}, cannot be read: {type(error).__name__}: {error}') from error
        height, width = results['ori_shape'][:2]
        if mask.shape != (height, width):
            sizes = f'{image} has {width}x{height} pixels, but its mask {path} has {mask.shape[1]}x{mask.shape[0]}'
            raise UserError(f'{sizes}; both must have the same size')
        return {**results, 'gt_seg_map': mask, 'seg_fields': [*results.get('seg_fields', ()), 'gt_seg_map']}

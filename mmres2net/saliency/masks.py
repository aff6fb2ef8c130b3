"""Mask files of salient objects: which pixels are salient, and which files are refused.

A pixel is salient from a grey value of 128 on. PySODMetrics and common toolboxes binarize at more than 128: they differ
at exactly 128, which matters for PASCAL-S, whose grey values are shares of people who chose an object (half of them:
127.5). Masks of DUT-OMRON and all JPEG masks have grey edges, so values other than 0 and 255 are usual. A mask may be
all background or all foreground. A file that would silently be read with another meaning is refused.
"""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.registry import TRANSFORMS

THRESHOLD = 128
FAINT = 16  # below this, the values are class indices: one person of PASCAL-S's twelve gives 21
COLOURED = 16  # JPEG compression of grey images makes channels differ by less
ALPHA = ('LA', 'La', 'RGBA', 'RGBa', 'PA')


def salient_pixels(path: str) -> np.ndarray:
    """Return a mask file as (H, W) of uint8: 1 where its grey value is at least 128, else 0.

    Files may have one bit or 8 bits, a palette, or three equal channels; an opaque alpha channel is ignored. A
    UserError says that there are colours, transparent pixels, more than 8 bits, or no value above 15 except zeros; an
    OSError that the file is missing or not an image.
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
    fault = _transparency(image, path)
    if fault:
        raise UserError(fault)
    colours = np.asarray(image.convert('RGB'))
    if int((colours.max(2) - colours.min(2)).max()) > COLOURED:
        raise UserError(f'{path}: the mask has colours; save it in grey, with 255 on the salient object')
    return colours[..., 1]


def transparency_fault(path: str) -> str:
    """Return a message if pixels of an image are transparent, else '': loaders would uncover their colours."""
    with Image.open(path) as image:
        return _transparency(image, path)


def _transparency(image: Image.Image, path: str) -> str:
    if image.mode not in ALPHA and 'transparency' not in image.info:
        return ''
    if image.convert('RGBA').getchannel('A').getextrema()[0] == 255:
        return ''
    return f'{path}: some pixels are transparent, so their colour is not defined; save it without alpha channel'


@TRANSFORMS.register_module()
class LoadSaliencyMask(BaseTransform):
    """Load a mask file as labels: 1 where its grey value is at least 128 of 255, else 0.

    Put it after ``LoadImageFromFile``; in test pipelines also after ``Resize``, because predictions are compared at the
    size of the image file.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with ``gt_seg_map`` (H, W) of uint8 in ``seg_fields``; the given dict stays as it is.

        A UserError says that no image was loaded, that some of its pixels are transparent, or that the mask is missing,
        damaged, of another size or not a mask of salient objects.
        """
        if 'ori_shape' not in results:
            raise UserError('mmres2net.LoadSaliencyMask: no image is loaded; put it after LoadImageFromFile')
        image, path = results['img_path'], results['seg_map_path']
        try:
            mask = salient_pixels(path)
            fault = transparency_fault(image)
        except UserError:
            raise
        except Exception as error:  # a missing or damaged file, or an image of too many pixels
            raise UserError(f'{image} or its mask {path} cannot be read: {type(error).__name__}: {error}') from error
        height, width = results['ori_shape'][:2]
        if fault or mask.shape != (height, width):
            sizes = f'{image} has {width}x{height} pixels, but its mask {path} has {mask.shape[1]}x{mask.shape[0]}'
            raise UserError(fault or f'{sizes}; both must have the same size')
        return {**results, 'gt_seg_map': mask, 'seg_fields': [*results.get('seg_fields', ()), 'gt_seg_map']}

"""Mask files of salient objects: which pixels are salient, and which files cannot say so.

Convention: salient is what has at least 128 of 255. Masks of PASCAL-S are graded (how many people chose an object),
those of DUT-OMRON and all JPEG masks have grey edges, so other values than 0 and 255 are usual. A mask may be all
background or all foreground. What would be read in silence as something else than it means is refused.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmres2net.errors import UserError

THRESHOLD = 128
FAINT = 16  # a mask whose brightest value is below holds numbers of classes: one vote of PASCAL-S's twelve is 21
COLOURED = 16  # difference of channels that JPEG leaves in grey
COLOURS = ('RGB', 'P', 'LA', 'La', 'RGBA', 'RGBa', 'PA')
ALPHA = ('LA', 'La', 'RGBA', 'RGBa', 'PA')
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height


def salient_pixels(path: str) -> np.ndarray:
    """Return a mask file as (H, W) of uint8: 1 where its grey value is at least 128, else 0.

    Read are files of one bit, of 8 bits, with a palette, and of three equal channels; an opaque alpha channel is left
    out.

    Raises:
        UserError: Colours, transparent pixels, more than 8 bits, or no value of 16 or more but for zeros.
        OSError: No such file, or no image.
    """
    with Image.open(path) as image:
        values = _grey(image, path)
    brightest = int(values.max())
    if 0 < brightest < FAINT:
        raise UserError(
            f'{path}: its brightest value is {brightest}, so nothing in it would be salient, which is {THRESHOLD} to '
            '255; save a mask of classes 0 and 1 with 0 and 255'
        )
    return (values >= THRESHOLD).astype(np.uint8)


def _grey(image: Image.Image, path: str) -> np.ndarray:
    if image.mode in ('1', 'L') and 'transparency' not in image.info:
        return np.asarray(image.convert('L'))
    if image.mode not in (*COLOURS, '1', 'L'):
        raise UserError(f'{path}: a mask of mode {image.mode}; save it with one channel of 8 bits, 0 and 255')
    fault = _transparency(image, path)
    if fault:
        raise UserError(fault)
    colours = np.asarray(image.convert('RGB'))
    if int((colours.max(2) - colours.min(2)).max()) > COLOURED:
        raise UserError(f'{path}: a mask in colours; save it in grey, with 255 where the salient object is')
    return colours[..., 1]


def transparency_fault(path: str) -> str:
    """Return what is wrong with an image file if some of its pixels are transparent; else nothing.

    Loaders drop the alpha channel: what lies behind it, which nobody has ever seen, would be learnt.

    Raises:
        OSError: No such file, or no image.
    """
    with Image.open(path) as image:
        return _transparency(image, path)


def _transparency(image: Image.Image, path: str) -> str:
    if image.mode not in ALPHA and 'transparency' not in image.info:
        return ''
    if image.convert('RGBA').getchannel('A').getextrema()[0] == 255:
        return ''
    return f'{path}: some pixels are transparent, and what lies behind them is not known; save it without alpha channel'


def size_fault(image: str, size: tuple[int, int], mask: str, mask_size: tuple[int, int]) -> str:
    """Return what is wrong with an image and its mask if their sizes (width, height) differ; else nothing."""
    if size == mask_size:
        return ''
    return (
        f'{image} has {size[0]}x{size[1]} pixels, but its mask {mask} has {mask_size[0]}x{mask_size[1]}; a mask needs '
        'the size of its image'
    )


def sample_fault(image: str, mask: str) -> str:
    """Return why an image file and its mask file cannot be used together; nothing where they can.

    Files that are missing or damaged are not this check's business.
    """
    try:
        fault = transparency_fault(image)
        pixels = salient_pixels(mask)
        return fault or size_fault(image, _seen_size(image), mask, (pixels.shape[1], pixels.shape[0]))
    except UserError as error:
        return str(error)
    except Exception:  # damaged files raise many kinds of error
        return ''


def _seen_size(path: str) -> tuple[int, int]:
    """Return the (width, height) that a loader which honours EXIF gives an image."""
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION) in (5, 6, 7, 8) else (width, height)

"""Mask files of salient objects: which pixels are salient, and which files are refused.

A pixel is salient from a grey value of 128 on. PySODMetrics and common toolboxes binarize at more than 128: they differ
at exactly 128, which matters for PASCAL-S, whose grey values are shares of people who chose an object (half of them:
127.5). Masks of DUT-OMRON and all JPEG masks have grey edges, so values other than 0 and 255 are usual. A mask may be
all background or all foreground. A file that would silently be read with another meaning is refused.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmres2net.errors import UserError

THRESHOLD = 128
FAINT = 16  # below this, the values are class indices: one person of PASCAL-S's twelve gives 21
COLOURED = 16  # JPEG compression of grey images makes channels differ by less
COLOURS = ('RGB', 'P', 'LA', 'La', 'RGBA', 'RGBa', 'PA')
ALPHA = ('LA', 'La', 'RGBA', 'RGBa', 'PA')
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height


def salient_pixels(path: str) -> np.ndarray:
    """Return a mask file as (H, W) of uint8: 1 where its grey value is at least 128, else 0.

    Files may have one bit or 8 bits, a palette, or three equal channels; an opaque alpha channel is ignored.

    Raises:
        UserError: Colours, transparent pixels, more than 8 bits, or no value above 15 except zeros.
        OSError: The file is missing or not an image.
    """
    with Image.open(path) as image:
        values = _grey(image, path)
    brightest = int(values.max())
    if 0 < brightest < FAINT:
        raise UserError(
            f'{path}: the largest value is {brightest}, but a pixel is salient from {THRESHOLD} on; save masks with '
            'the values 0 and 255'
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
        raise UserError(f'{path}: the mask has colours; save it in grey, with 255 on the salient object')
    return colours[..., 1]


def transparency_fault(path: str) -> str:
    """Return what is wrong with an image file if some of its pixels are transparent, else ''.

    Loaders drop the alpha channel, so a network would be trained on colours that are not visible.
    """
    with Image.open(path) as image:
        return _transparency(image, path)


def _transparency(image: Image.Image, path: str) -> str:
    if image.mode not in ALPHA and 'transparency' not in image.info:
        return ''
    if image.convert('RGBA').getchannel('A').getextrema()[0] == 255:
        return ''
    return f'{path}: some pixels are transparent, so their colour is not defined; save it without alpha channel'


def size_fault(image: str, size: tuple[int, int], mask: str, mask_size: tuple[int, int]) -> str:
    """Return what is wrong with an image and its mask if their sizes (width, height) differ, else ''."""
    if size == mask_size:
        return ''
    return (
        f'{image} has {size[0]}x{size[1]} pixels, but its mask {mask} has {mask_size[0]}x{mask_size[1]}; both must '
        'have the same size'
    )


def sample_fault(image: str, mask: str) -> str:
    """Return why an image file and its mask file cannot be used together, else ''; damage is found by another check."""
    try:
        fault = transparency_fault(image)
        pixels = salient_pixels(mask)
        return fault or size_fault(image, _size_by_exif(image), mask, (pixels.shape[1], pixels.shape[0]))
    except UserError as error:
        return str(error)
    except Exception:  # damaged files raise many kinds of error
        return ''


def _size_by_exif(path: str) -> tuple[int, int]:
    """Return the (width, height) of an image, rotated as its EXIF orientation says."""
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION) in (5, 6, 7, 8) else (width, height)

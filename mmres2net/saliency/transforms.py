"""The transform that loads masks of salient objects."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import BaseTransform

from mmres2net.errors import UserError
from mmres2net.registry import TRANSFORMS
from mmres2net.saliency.masks import salient_pixels, size_fault, transparency_fault


@TRANSFORMS.register_module()
class LoadSaliencyMask(BaseTransform):
    """Load a mask file as labels: 1 where its grey value is at least 128 of 255, else 0 (see ``masks.py``).

    Put it after ``LoadImageFromFile``; in test pipelines also after ``Resize``, because predictions are compared at the
    size of the image file.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with ``gt_seg_map`` (H, W) of uint8 in ``seg_fields``; the given dict stays as it is.

        Raises:
            UserError: No image was loaded, some of its pixels are transparent, or the mask is missing, damaged, of
                another size or not a mask of salient objects.
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
        fault = fault or size_fault(image, (width, height), path, mask.shape[::-1])
        if fault:
            raise UserError(fault)
        return {**results, 'gt_seg_map': mask, 'seg_fields': [*results.get('seg_fields', ()), 'gt_seg_map']}

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'

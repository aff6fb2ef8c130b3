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
            UserError: No image was loaded, some of its pixels are transparent, the mask has another size, or it cannot
                say which pixels are salient.
        """
        if 'ori_shape' not in results:
            raise UserError('mmres2net.LoadSaliencyMask: no image is loaded; put it after LoadImageFromFile')
        image, path = results['img_path'], results['seg_map_path']
        mask = salient_pixels(path)
        height, width = results['ori_shape'][:2]
        fault = transparency_fault(image) or size_fault(image, (width, height), path, mask.shape[::-1])
        if fault:
            raise UserError(fault)
        return {**results, 'gt_seg_map': mask, 'seg_fields': [*results.get('seg_fields', ()), 'gt_seg_map']}

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'

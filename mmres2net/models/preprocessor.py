"""Padding for segmentors with aligned corners: images of 16 k + 1 pixels in height and width.

With aligned corners the first and last feature lie on the first and last pixel, if the image has k times the stride
plus 1 pixels. At other sizes the last feature lies before the last pixel, and the prediction is stretched.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseDataPreprocessor

from mmres2net.registry import MODELS


@MODELS.register_module()
class AlignedSegDataPreProcessor(BaseDataPreprocessor):
    """mmseg's ``SegDataPreProcessor`` that pads test images to the next ``k * divisor + 1`` pixels.

    Training crops are padded to ``size``, test images at least to it.

    Args:
        mean, std: Of each channel, for pixels of 0 to 255.
        size: Height and width that crops are padded to, each ``k * divisor + 1``.
        divisor: Stride of the features whose corners are aligned.
        bgr_to_rgb, rgb_to_bgr, pad_val, seg_pad_val: As in ``SegDataPreProcessor``.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], size: tuple[int, int], divisor: int = 16,
        bgr_to_rgb: bool = False, rgb_to_bgr: bool = False, pad_val: float = 0, seg_pad_val: float = 255,
    ) -> None:  # fmt: skip
        super().__init__()
        if any((side - 1) % divisor for side in size):
            raise ValueError(f'size={tuple(size)}: both must be {divisor} k + 1, such as {32 * divisor + 1}')
        self.size, self.divisor = (size[0], size[1]), divisor
        options = dict(bgr_to_rgb=bgr_to_rgb, rgb_to_bgr=rgb_to_bgr, pad_val=pad_val, seg_pad_val=seg_pad_val)
        node = dict(type='mmseg.SegDataPreProcessor', mean=mean, std=std, size=self.size, **options)
        self.preprocessor = MODELS.build(node)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return ``inputs`` (N, 3, H, W), normalized and padded, of images (3, h, w); masks are padded too."""
        if not training:
            sides = data['inputs'][0].shape[-2:]
            aligned = [-(-(side - 1) // self.divisor) * self.divisor + 1 for side in sides]
            self.preprocessor.test_cfg = {'size': tuple(map(max, aligned, self.size))}
        return self.preprocessor(data, training)

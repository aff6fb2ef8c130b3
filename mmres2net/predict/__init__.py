"""Predictions from exported files, with numpy, Pillow and the runtime of the file, and from checkpoints.

>>> from mmres2net import predict
>>> model = predict.load('mask_rcnn.onnx')  # doctest: +SKIP
>>> model.predict('street.jpg')['boxes']  # doctest: +SKIP
"""

from mmres2net.predict.masks import decode_mask
from mmres2net.predict.model import Model, load

__all__ = ['Model', 'decode_mask', 'load']

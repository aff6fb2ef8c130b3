"""Predictions from exported files, with numpy, Pillow and the runtime of the file, and from checkpoints.

>>> from mmres2net import predict
>>> model = predict.load('mask_rcnn.onnx')  # doctest: +SKIP
>>> model.predict('street.jpg')['boxes']  # doctest: +SKIP
"""

from mmres2net.predict.images import decode_mask
from mmres2net.predict.model import Predictor

load = Predictor
__all__ = ['Predictor', 'decode_mask', 'load']

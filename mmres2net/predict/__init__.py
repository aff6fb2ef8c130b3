"""Predictions from exported files: with numpy, Pillow and the runtime of the file, and nothing of OpenMMLab.

>>> from mmres2net import predict
>>> model = predict.load('mask_rcnn.onnx')  # doctest: +SKIP
>>> model.predict('street.jpg')['boxes']  # doctest: +SKIP
"""

from mmres2net.predict.model import Model, load

__all__ = ['Model', 'load']

"""Backbones and heads as networks. Imports torch, mmengine and mmcv, never mmdet, mmseg or mmpretrain."""

from mmres2net.models.arch import ALIASES, ARCHS, Arch, find_arch
from mmres2net.models.cifar import DenseNetBC, WideResNet
from mmres2net.models.dla import Res2NetDLA
from mmres2net.models.heads import Res2LayerHead
from mmres2net.models.preprocessor import AlignedSegDataPreProcessor
from mmres2net.models.res2net import Bottle2neck, Res2Net

__all__ = [
    'ALIASES', 'ARCHS', 'AlignedSegDataPreProcessor', 'Arch', 'Bottle2neck', 'DenseNetBC', 'Res2LayerHead',
    'Res2Net', 'Res2NetDLA', 'WideResNet', 'find_arch',
]  # fmt: skip

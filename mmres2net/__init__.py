"""Res2Net backbones for OpenMMLab detection, segmentation and classification.

Importing this package loads no torch and no host library; import ``mmres2net.models`` to register the backbones.
"""

from mmres2net.version import __version__

__all__ = ['__version__']

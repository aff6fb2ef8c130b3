"""Res2Net backbones for OpenMMLab detection, segmentation and classification.

Importing this package loads neither torch nor an OpenMMLab library; import ``mmres2net.models`` to register the
backbones. It makes mmcv's operators importable where mmcv was installed without compiled ones, so import it first.
"""

from mmres2net.mmcv_ops import provide_operators
from mmres2net.version import __version__

__all__ = ['__version__']

provide_operators()

"""Operators on a CPU: a faster RoIAlign, and mmcv's own for channels_last tensors."""

from mmres2net.ops.mmcv_guard import guard_mmcv_operators
from mmres2net.ops.roi_align import RoIAlign

__all__ = ['RoIAlign', 'guard_mmcv_operators']

"""Inference with folded batch norms: :func:`fuse` returns plain modules, :func:`use_fused_blocks` works in place."""

from mmres2net.deploy.blocks import use_fused_blocks
from mmres2net.deploy.fuse import fuse

__all__ = ['fuse', 'use_fused_blocks']

"""Making trained models fast: :func:`optimize`."""

from mmres2net.deploy.optimizing import optimize

__all__ = ['optimize']

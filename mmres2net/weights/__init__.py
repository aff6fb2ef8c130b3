"""Weights: what is published (none is part of this project), whose a file is, and how it gets into a network."""

from mmres2net.weights.content import unwrap
from mmres2net.weights.families import Recognised, recognise
from mmres2net.weights.fit import adapt_channels, fit
from mmres2net.weights.mapping import Report, to_ours
from mmres2net.weights.published import PUBLISHED, Pixels, Published, find_published, pixels_of

__all__ = [
    'PUBLISHED',
    'Pixels',
    'Published',
    'Recognised',
    'Report',
    'adapt_channels',
    'find_published',
    'fit',
    'pixels_of',
    'recognise',
    'to_ours',
    'unwrap',
]

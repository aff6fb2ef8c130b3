"""Weights: what is published (none is part of this project), reading them safely, recognising and loading them."""

from mmres2net.weights.fetching import PUBLISHED, Normalization, Published, find_published, normalization_of
from mmres2net.weights.loading import Report, adapt_channels, fit, to_ours
from mmres2net.weights.naming import Recognised, recognise
from mmres2net.weights.reading import unwrap

__all__ = [
    'PUBLISHED',
    'Normalization',
    'Published',
    'Recognised',
    'Report',
    'adapt_channels',
    'find_published',
    'fit',
    'normalization_of',
    'recognise',
    'to_ours',
    'unwrap',
]

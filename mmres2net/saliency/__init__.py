"""Salient object detection (section 4.9): DSS, its data sets and its metrics."""

from mmres2net.saliency.datasets import LoadSaliencyMask, SaliencyDataset
from mmres2net.saliency.dss import DSSHead, WithStem
from mmres2net.saliency.metrics import SaliencyMetric

__all__ = ['DSSHead', 'LoadSaliencyMask', 'SaliencyDataset', 'SaliencyMetric', 'WithStem']

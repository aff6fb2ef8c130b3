"""Salient object detection (section 4.9): DSS, its data sets and its metrics."""

from mmres2net.saliency.datasets import SaliencyDataset
from mmres2net.saliency.dss import DSSHead
from mmres2net.saliency.maps import SaliencyMapsHook
from mmres2net.saliency.metrics import SaliencyMetric
from mmres2net.saliency.stem import WithStem
from mmres2net.saliency.transforms import LoadSaliencyMask

__all__ = ['DSSHead', 'LoadSaliencyMask', 'SaliencyDataset', 'SaliencyMapsHook', 'SaliencyMetric', 'WithStem']

"""Metrics of detection and segmentation: all metrics of the paper's tables, by the protocols that define them."""

from mmres2net.evaluation.coco import COCOMetric
from mmres2net.evaluation.iou import IoUMetric
from mmres2net.evaluation.voc import VOCMetric

__all__ = ['COCOMetric', 'IoUMetric', 'VOCMetric']

"""DeepLabv3+ R50 on VOC 2012 with SBD at output stride 16: the baseline of deeplabv3plus_r2n50.py.

Family: paper (output stride 16; the paper states no other setting, these are of public code that reaches its figures).
Target: mIoU 77.0, published by the paper (table 7).
Schedule: 30,000 steps x 16 images = 45.4 epochs of 10,582 images.
Status: not trained at full size here; it trains and evaluates on a small part of VOC 2012.
Run: tools/train.py configs/deeplabv3plus_r50.py
"""

_base_ = [
    '_base_/models/deeplabv3plus_r50_d16.py',
    '_base_/datasets/voc12aug_segmentation.py',
    '_base_/schedules/poly_30k.py',
    '_base_/segmentation_runtime.py',
]

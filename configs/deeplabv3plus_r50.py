"""DeepLabv3+ R50 on VOC 2012 with SBD at output stride 16: the baseline of deeplabv3plus_r2n50.py.

The paper states the output stride and no other setting; these are of public code that reaches its values.
Recipe: paper.
Run: tools/train.py configs/deeplabv3plus_r50.py
"""

_base_ = [
    '_base_/models/deeplabv3plus_r50_d16.py',
    '_base_/datasets/voc12aug_segmentation.py',
    '_base_/schedules/poly_30k.py',
    '_base_/segmentation_runtime.py',
]

"""DeepLabv3+ R101 on VOC 2012 with SBD at output stride 16: the baseline of deeplabv3plus_r2n101.py.

Recipe: paper.
Run: tools/train.py configs/deeplabv3plus_r101.py
"""

_base_ = 'deeplabv3plus_r50.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))

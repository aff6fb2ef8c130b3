"""DeepLabv3+ R101 on VOC 2012 with SBD at output stride 16: the baseline of deeplabv3plus_r2n101.py.

Family: paper (output stride 16; the paper states no other setting, these are of public code that reaches its figures).
Target: mIoU 78.5, published by the paper (table 7).
Schedule: 30,000 steps x 16 images = 45.4 epochs of 10,582 images.
Status: not trained at full size here; it trains and evaluates on a small part of VOC 2012.
Run: tools/train.py configs/deeplabv3plus_r101.py
"""

_base_ = 'deeplabv3plus_r50.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))

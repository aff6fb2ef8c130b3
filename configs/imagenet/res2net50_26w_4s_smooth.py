"""Res2Net-50 26w x 4s on ImageNet with label smoothing: resnet50_smooth.py with another backbone and nothing else.

Recipe: script (the authors' training script).
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2net50_26w_4s_smooth.py --launcher pytorch
"""

_base_ = 'resnet50_smooth.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2net50_26w_4s', out_indices=(3,)))

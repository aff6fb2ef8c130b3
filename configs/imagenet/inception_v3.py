"""InceptionV3 on ImageNet at 299 x 299 pixels: the peer of res2net50_26w_4s_299.py in table 1.

The paper quotes the published value of torchvision's weights. Here without the auxiliary branch, a regularizer of its
authors, because mmpretrain's head gives it no loss. Trained by the recipe of the Res2Net, not by that of its authors.
Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/inception_v3.py --launcher pytorch
"""

_base_ = 'res2net50_26w_4s_299.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.InceptionV3',
        num_classes=1000,
        aux_logits=False,
        init_cfg=[
            dict(type='TruncNormal', layer='Conv2d', std=0.1),
            dict(type='Normal', layer='Linear', std=0.01),  # as the classifiers of the other configs
            dict(type='Constant', layer='BatchNorm2d', val=1),
        ],
    ),
    neck=None,
    head=dict(
        _delete_=True,
        type='ClsHead',
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)

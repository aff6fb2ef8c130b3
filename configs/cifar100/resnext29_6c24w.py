"""ResNeXt-29 6c24w on CIFAR-100: the baseline of figure 4, depth 29, cardinality 6 and scale 1.

The paper does not state the width; 24 is that of its Res2NeXt-29 of cardinality 6 in table 4.
Recipe: paper.
Run: tools/train.py configs/cifar100/resnext29_6c24w.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        family='cifar',
        depths=(3, 3, 3),
        base_width=24,
        scales=1,
        cardinality=6,
        out_indices=(2,),
    )
)

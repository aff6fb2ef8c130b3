"""ResNeXt-29 6c24w on CIFAR-100: the baseline of the paper's figure 4, depth 29, cardinality 6 and scale 1.

Family: paper.
Target: none in numbers; figure 4 is a drawing. tools/sweep.py varies this network and draws it.
Schedule: 300 epochs x 50,000 images / 64 a step = 782 steps an epoch.
Parameters: 7.01M. The paper does not tell the width; 24 is that of its Res2NeXt-29 of cardinality 6 in table 4.
Status: not trained here; its step runs in the tests.
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

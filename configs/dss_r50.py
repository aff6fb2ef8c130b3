"""DSS R50 on MSRA-B: the baseline of dss_r2n50.py.

The paper states no setting of DSS on ResNet-50; the _base_ files say what is known and what is not.
Recipe: paper.
Run: tools/train.py configs/dss_r50.py
"""

_base_ = [
    '_base_/models/dss_r50.py',
    '_base_/datasets/msrab_saliency.py',
    '_base_/schedules/dss.py',
    '_base_/segmentation_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=1_500, save_best='maxF', rule='greater'))

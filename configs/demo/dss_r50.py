"""DSS R50 on the embedded shapes: the baseline of dss_r2n50.py.

Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/demo/dss_r50.py
"""

_base_ = [
    '../_base_/models/dss_r50.py',
    '../_base_/datasets/shapes_saliency.py',
    '../_base_/schedules/demo.py',
    '../_base_/segmentation_runtime.py',
]

# Small images need few channels; norms learn, since nothing was learnt before.
model = dict(
    backbone=dict(backbone=dict(norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None)),
    decode_head=dict(channels=(16, 32, 32, 64, 64)),
)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(by_epoch=True, interval=4, save_best=None))
log_processor = dict(by_epoch=True)

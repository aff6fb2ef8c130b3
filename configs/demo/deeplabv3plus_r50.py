"""DeepLabv3+ R50 at output stride 16 on the embedded shapes: the baseline of deeplabv3plus_r2n50.py.

Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/demo/deeplabv3plus_r50.py
"""

_base_ = [
    '../_base_/models/deeplabv3plus_r50_d16.py',
    '../_base_/datasets/shapes_segmentation.py',
    '../_base_/schedules/demo.py',
    '../_base_/segmentation_runtime.py',
]

# Images of 160 pixels: a smaller crop (10 x 16 + 1), rates to match, and half the channels.
channels = 128
model = dict(
    data_preprocessor=dict(size=(161, 161)),
    backbone=dict(init_cfg=None),
    decode_head=dict(channels=channels, dilations=(1, 2, 4, 6), num_classes=7),
)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(by_epoch=True, interval=4, save_best=None))
log_processor = dict(by_epoch=True)

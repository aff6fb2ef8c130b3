"""DSS R50 on a small set of photographs: the baseline of dss_r2n50_photos.py.

DIR has images/*.jpg, masks/*.png and the lists train.txt and test.txt.
Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/demo/dss_r50_photos.py --data DIR
"""

_base_ = 'dss_r50.py'

embedded_data = None
data_root = 'data/photos/saliency/'
named = dict(dataset_name='photos', data_root=data_root)
image, mask = dict(type='LoadImageFromFile'), dict(type='mmres2net.LoadSaliencyMask')
size = (144, 144)
varied = [
    dict(type='RandomResize', scale=size, ratio_range=(1.0, 1.3), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(128, 128)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
]
tested = [image, dict(type='Resize', scale=size, keep_ratio=True), mask, _base_.pack]
train_dataloader = dict(dataset=dict(**named, pipeline=[image, mask, *varied, _base_.pack]))
val_dataloader = dict(dataset=dict(**named, pipeline=tested))
test_dataloader = val_dataloader

epochs = 24
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
ramp = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40)
cosine = dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=epochs, T_max=epochs, convert_to_iter_based=True)
param_scheduler = [ramp, cosine]
default_hooks = dict(checkpoint=dict(interval=epochs))

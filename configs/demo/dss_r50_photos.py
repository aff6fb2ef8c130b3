"""DSS R50 on any small set of photographs, from random weights: the baseline of demo/dss_r2n50_photos.py.

The folder has images/*.jpg, masks/*.png and the lists train.txt and test.txt. It shows that the whole chain learns, in
minutes on two CPU cores; its figures rank no backbone.

Family: demo.
Target: none.
Schedule: 24 epochs x 120 images / 4 a step = 30 steps an epoch, for a list of that length.
Status: a training step and an evaluation were run here; demo/dss_r2n50_photos.py was trained.
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

"""30,000 steps of 16 images by SGD, polynomial decay; the pretrained backbone has a tenth of the learning rate."""

max_iters = 30_000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=3_000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=max_iters)]
# 4 processes of 4 images: --auto-scale-lr scales the learning rate to other numbers.
auto_scale_lr = dict(enable=False, base_batch_size=16)

"""12 epochs of SGD with a warm-up of one epoch and a cosine: about 20 minutes of a CPU core for a small network.

The learning rate and the batch were chosen with the baseline alone, resnext20_2c22w.py, before any Res2Net was trained.
Runs of 3 epochs, held-out accuracy: 71.2 with 0.3 and 128 images, 71.0 with 0.1 and 64, 70.2 with 0.1 and 128.
"""

max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.0005)
)
param_scheduler = [
    dict(type='LinearLR', by_epoch=True, begin=0, end=1, start_factor=0.1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=1,
        end=max_epochs,
        T_max=max_epochs - 1,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=128)

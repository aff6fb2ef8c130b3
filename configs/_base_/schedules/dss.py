"""12,000 steps of 10 images by SGD, a tenth of the learning rate from step 7,500: DSS's Caffe solver for mean losses.

The solver (of the VGG-16 form; none is public for ResNets) has lr 1e-8, weight decay 5e-4 and 10 single images per
step, whose gradients Caffe averages. Its loss is a sum over pixels, of which an image of 400x300 has 120,000; here it
is a mean. The same steps need

    lr            1e-8 x 120,000 = 1.2e-3
    weight decay  5e-4 / 120,000 = 4.2e-9, since Caffe adds it to the summed gradient: 1e-8 x 5e-4 = 1.2e-3 x 4.2e-9

so DSS is trained with almost no weight decay. Learning rates of single layers are not carried over. Momentum 0.9 is
the usual value; the norms of the backbone are frozen.
"""

pixels = 400 * 300
max_iters = 12_000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=1_500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-8 * pixels, momentum=0.9, weight_decay=5e-4 / pixels)
)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[7_500], gamma=0.1),
]
# One process of 10 images: --auto-scale-lr scales the learning rate to other numbers.
auto_scale_lr = dict(enable=False, base_batch_size=10)

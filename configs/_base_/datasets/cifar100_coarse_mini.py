"""20 coarse classes: the first 900 images of CIFAR-100's `test.bin` to train on, 480 of `train.bin` to test on."""

_base_ = 'cifar100.py'

dataset_type = 'mmres2net.CIFAR100Coarse'
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, ann_file='test.bin', indices=900),
)
val_dataloader = dict(
    batch_size=60,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, ann_file='train.bin', indices=480),
)
test_dataloader = val_dataloader

"""900 images to train on and 480 to test on, the first of CIFAR-100's files `test` and `train`; 20 coarse classes."""

_base_ = 'cifar100.py'

dataset_type = 'mmres2net.CIFAR100Coarse'
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, ann_file='test', indices=900),
)
val_dataloader = dict(
    batch_size=60,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, ann_file='train', indices=480),
)
test_dataloader = val_dataloader

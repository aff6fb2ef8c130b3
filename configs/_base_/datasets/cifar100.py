"""CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels, 100 classes; tested on the test images.

Padded with the mean, which is 0 after normalization, as in the ResNeXt code that the paper builds on.
"""

dataset_type = 'mmres2net.CIFAR100'
data_root = 'data/cifar-100-binary/'

train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4, pad_val=(124, 116, 104)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='train.bin', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='test.bin', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

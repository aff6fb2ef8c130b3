"""ImageNet-1k in its published layout: train/WNID/*.JPEG and val/WNID/*.JPEG, 1,281,167 and 50,000 images.

Training takes a random crop of 8 to 100 % of the area, scaled to 224 pixels, and a flip. Testing scales the shorter
edge to 256 pixels and takes the centre crop. Pillow resizes, because it smooths when it shrinks, as torchvision's
transforms do. The labels are the folders sorted by name.
"""

dataset_type = 'ImageNet'
data_root = 'data/imagenet/'
crop_size, short_edge = 224, 256

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=crop_size, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=short_edge, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=crop_size),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, data_prefix='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

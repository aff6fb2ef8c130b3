"""The embedded data set as VOC 2012 segmentation: drawn shapes and background, made on first use."""

embedded_data = 'data/shapes/'
data_root = embedded_data + 'VOCdevkit/VOC2012/'
classes = ('background', 'disc', 'square', 'triangle', 'star', 'ring', 'cross')
palette = [[0, 0, 0], [220, 60, 60], [60, 160, 60], [60, 90, 220], [230, 190, 40], [170, 70, 190], [40, 180, 190]]
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)

dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    img_suffix='.jpg',
    seg_map_suffix='.png',
    metainfo=dict(classes=classes, palette=palette),
)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset,
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=[*load, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=[load[0], resize, load[1], dict(type='PackSegInputs')],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmres2net.IoUMetric')
test_evaluator = val_evaluator

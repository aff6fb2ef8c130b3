"""PASCAL VOC 2007 detection: trainval to test at 1000x600, 11-point AP at IoU 0.5.

Small objects are kept: the filter of boxes under 32 pixels in mmdet's VOC configs is not part of the protocol. Objects
marked difficult are ignored in training and in the evaluation.
"""

dataset_type = 'VOCDataset'
data_root = 'data/VOCdevkit/'
image_scale = (1000, 600)

load_image = dict(type='LoadImageFromFile')
load_boxes = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=image_scale, keep_ratio=True)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

train_pipeline = [load_image, load_boxes, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
test_pipeline = [load_image, resize, load_boxes, dict(type='PackDetInputs', meta_keys=meta_keys)]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmres2net.VOCMetric', eval_mode='11points')
test_evaluator = val_evaluator

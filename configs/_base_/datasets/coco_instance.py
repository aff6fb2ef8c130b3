"""COCO 2017 instance segmentation: boxes and masks, train2017 to val2017 at 1333x800."""

_base_ = './coco_detection.py'

image_scale = (1333, 800)

load_image = dict(type='LoadImageFromFile')
load_masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
resize = dict(type='Resize', scale=image_scale, keep_ratio=True)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

train_pipeline = [load_image, load_masks, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
test_pipeline = [load_image, resize, load_masks, dict(type='PackDetInputs', meta_keys=meta_keys)]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator

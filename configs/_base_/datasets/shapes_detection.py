"""The embedded data set: drawn shapes in COCO layout, made on first use (tools/make_demo_data.py)."""

_base_ = './coco_detection.py'

data_root = 'data/shapes/'
embedded_data = data_root
metainfo = dict(classes=('disc', 'square', 'triangle', 'star', 'ring', 'cross'))
image_scale = (160, 160)

load_image = dict(type='LoadImageFromFile')
load_boxes = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=image_scale, keep_ratio=True)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

train_pipeline = [load_image, load_boxes, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
test_pipeline = [load_image, resize, load_boxes, dict(type='PackDetInputs', meta_keys=meta_keys)]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json', classwise=True)
test_evaluator = val_evaluator

"""The embedded data set as salient objects: the largest shape of each image; made on first use."""

embedded_data = 'data/shapes/'
data_root = embedded_data + 'saliency/'
dataset_name = 'shapes'
scale = (128, 128)

load = [dict(type='LoadImageFromFile'), dict(type='mmres2net.LoadSaliencyMask')]
resize = dict(type='Resize', scale=scale, keep_ratio=True)
keys = ('img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip', 'flip_direction')
pack = dict(type='PackSegInputs', meta_keys=(*keys, 'dataset_name'))
dataset = dict(
    type='mmres2net.SaliencyDataset',
    dataset_name=dataset_name,
    data_root=data_root,
    data_prefix=dict(img_path='images', seg_map_path='masks'),
)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**dataset, ann_file='train.txt', pipeline=[*load, resize, dict(type='RandomFlip', prob=0.5), pack]),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, ann_file='test.txt', pipeline=[load[0], resize, load[1], pack]),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmres2net.SaliencyMetric')
test_evaluator = val_evaluator

"""Trained on MSRA-B (2,500 images, validated on 500), tested on ECSSD, PASCAL-S, HKU-IS and DUT-OMRON in one run.

tools/prepare_data.py lays it out. Images keep their size: most of MSRA-B have 400x300 or 300x400 pixels. A batch is
padded to its largest image.
"""

data_root = 'data/saliency/'
image_size = (300, 400)  # height and width of most images: what the cost of a model is counted for
folders = dict(img_path='images', seg_map_path='masks')
keys = ('img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip', 'flip_direction')
pack = dict(type='PackSegInputs', meta_keys=(*keys, 'dataset_name'))
load = [dict(type='LoadImageFromFile'), dict(type='mmres2net.LoadSaliencyMask')]
test_pipeline = [*load, pack]

msrab = dict(
    type='mmres2net.SaliencyDataset', dataset_name='MSRA-B', data_root=data_root + 'MSRA-B/', data_prefix=folders
)
suffixes = {'ECSSD': '.jpg', 'PASCAL-S': '.jpg', 'HKU-IS': '.png', 'DUT-OMRON': '.jpg'}
tested = dict(ann_file='', data_prefix=folders, pipeline=test_pipeline)

train_dataloader = dict(
    batch_size=10,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**msrab, ann_file='train.txt', pipeline=[*load, dict(type='RandomFlip', prob=0.5), pack]),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**msrab, ann_file='val.txt', pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='mmres2net.SaliencyDataset',
                dataset_name=name,
                data_root=f'{data_root}{name}/',
                img_suffix=img_suffix,
                **tested,
            )
            for name, img_suffix in suffixes.items()
        ],
    ),
)

val_evaluator = dict(type='mmres2net.SaliencyMetric')
test_evaluator = val_evaluator

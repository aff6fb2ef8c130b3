"""The same command trains and tests configs of mmseg and mmpretrain, with our backbone and the same checks."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from tests.engine.demo import is_drawn
from tests.support.cli import run_cli

COMMON = """
custom_imports = dict(imports=['mmres2net.models'], allow_failed_imports=False)
backbone = dict(type='mmres2net.Res2Net', depths=(1, 1, 1, 1), base_width=8, out_indices=(3,), norm_cfg=NORM)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
log_processor = dict(by_epoch=False)
val_dataloader = dict(LOADER, dataset=dict(DATASET, **VAL, pipeline=TEST_PIPELINE))
test_dataloader = val_dataloader
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(DATASET, **TRAIN, pipeline=TRAIN_PIPELINE),
)
"""
SEGMENTOR = """
default_scope = 'mmseg'
NORM = dict(type='SyncBN')
CLASSES = ('background', 'disc', 'square', 'triangle', 'star', 'ring', 'cross')
LOADER = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
DATASET = dict(
    type='BaseSegDataset', data_root='data/VOCdevkit/VOC2012', img_suffix='.jpg', seg_map_suffix='.png',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    metainfo=dict(classes=CLASSES, palette=[[i, i, i] for i in range(7)]),
)
TRAIN, VAL = (dict(ann_file=f'ImageSets/Segmentation/{part}.txt') for part in ('train', 'val'))
LOAD, LABELS, SIZE, PACK = (
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Resize', scale=(64, 64)),
    dict(type='PackSegInputs'),
)
TRAIN_PIPELINE, TEST_PIPELINE = [LOAD, LABELS, SIZE, PACK], [LOAD, SIZE, LABELS, PACK]
[COMMON]
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
model = dict(
    type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)), backbone=backbone,
    decode_head=dict(type='FCNHead', num_convs=1, in_channels=2048, channels=8, num_classes=7, norm_cfg=NORM),
    train_cfg=dict(), test_cfg=dict(mode='whole'),
)
""".replace('[COMMON]', COMMON)
CLASSIFIER = """
default_scope = 'mmpretrain'
NORM = dict(type='BN')
LOADER = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
DATASET = dict(type='CustomDataset', data_root='data/pets')
TRAIN, VAL = dict(data_prefix='train'), dict(data_prefix='val')
TRAIN_PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]
TEST_PIPELINE = TRAIN_PIPELINE
[COMMON]
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
model = dict(
    type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=2048), data_preprocessor=dict(num_classes=2),
)
""".replace('[COMMON]', COMMON)


def run(text: str, data: Path, folder: Path, metric: str) -> str:
    """Train two steps, test the checkpoint and compare the metrics of the two; return what training printed."""
    config, run_dir = folder / 'config.py', folder / 'run'
    config.write_text(text)
    where = ('--data', data, '--work-dir', run_dir)
    trained = run_cli('train', config, *where)
    assert trained.status == 0
    assert run_cli('test', config, run_dir / 'iter_2.pth', *where, '--draw', '2').status == 0
    assert len(list((run_dir / 'predictions').iterdir())) == 2
    for plot in ('curves', 'predictions'):
        assert is_drawn(run_dir / f'{plot}.png'), plot
    scalars = [line for file in sorted(run_dir.glob('*/vis_data/scalars.json')) for line in file.open()]
    (tested,) = (json.loads(file.read_text())[metric] for file in run_dir.glob('2*/*.json'))
    assert [json.loads(line)[metric] for line in scalars if metric in line] == pytest.approx([tested])
    table = trained.out.split('last evaluation\n')[1].split('checkpoints and logs')[0]
    assert (metric in table, f'{tested:.3f}' in table) == (True, True)
    return trained.out


def test_segmentor_and_one_with_another_number_of_classes(shapes: Path, tmp_path: Path) -> None:
    assert 'model.backbone.norm_cfg.type SyncBN -> BN' in run(SEGMENTOR, shapes, tmp_path, 'mIoU')
    (tmp_path / 'config.py').write_text(SEGMENTOR.replace('num_classes=7', 'num_classes=21'))
    refused = run_cli('train', tmp_path / 'config.py', '--data', shapes)
    assert refused.status == 2
    assert all(text in refused.err for text in ('model.decode_head.num_classes=21', '7 classes'))


def make_pets(shapes: Path, folder: Path) -> None:
    images = sorted((shapes / 'train2017').iterdir())
    for split, (name, image) in itertools.product(('train', 'val'), zip('ab', images, strict=False)):
        target = folder / 'pets' / split / name
        target.mkdir(parents=True)
        shutil.copy(image, target)


def test_classifier(shapes: Path, tmp_path: Path) -> None:
    make_pets(shapes, tmp_path)
    run(CLASSIFIER, tmp_path / 'pets', tmp_path, 'accuracy/top1')

"""The same command trains and tests configs of the other hosts, with our backbone and the same checks."""

import json
import shutil
from pathlib import Path

import pytest

from mmres2net.cli import main
from mmres2net.data.shapes import ShapesSpec, make_shapes

COMMON = """
custom_imports = dict(imports=['mmres2net.models'], allow_failed_imports=False)
backbone = dict(type='mmres2net.Res2Net', depths=(1, 1, 1, 1), base_width=8, out_indices=(3,), norm_cfg=NORM)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
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
SEGMENTOR = (
    """
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
TRAIN_PIPELINE = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Resize', scale=(64, 64)),
    dict(type='PackSegInputs'),
]
TEST_PIPELINE = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
"""
    + COMMON
    + """
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
model = dict(
    type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)), backbone=backbone,
    decode_head=dict(type='FCNHead', in_channels=2048, channels=8, num_convs=1, num_classes=7, norm_cfg=NORM),
    train_cfg=dict(), test_cfg=dict(mode='whole'),
)
"""
)
CLASSIFIER = (
    """
default_scope = 'mmpretrain'
NORM = dict(type='BN')
LOADER = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
DATASET = dict(type='CustomDataset', data_root='data/pets')
TRAIN, VAL = dict(data_prefix='train'), dict(data_prefix='val')
TRAIN_PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]
TEST_PIPELINE = TRAIN_PIPELINE
"""
    + COMMON
    + """
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
model = dict(
    type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=2048), data_preprocessor=dict(num_classes=2),
)
"""
)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', spec=ShapesSpec(n_train=6, n_val=3, seed=1))


@pytest.fixture
def pets(shapes: Path, tmp_path: Path) -> Path:
    """A folder per class, as classifiers read them."""
    for split in ('train', 'val'):
        for name, image in zip('ab', sorted((shapes / 'train2017').iterdir()), strict=False):
            (tmp_path / 'pets' / split / name).mkdir(parents=True)
            shutil.copy(image, tmp_path / 'pets' / split / name)
    return tmp_path / 'pets'


def run(text: str, data: Path, folder: Path, metric: str) -> None:
    """Train two steps, test the checkpoint and compare the metrics of the two."""
    (folder / 'config.py').write_text(text)
    where = ['--data', str(data), '--work-dir', str(folder / 'run')]
    assert main(['train', str(folder / 'config.py'), *where]) == 0
    assert main(['test', str(folder / 'config.py'), str(folder / 'run' / 'iter_2.pth'), *where, '--draw', '2']) == 0
    assert len(list((folder / 'run' / 'predictions').iterdir())) == 2
    scalars = [line for file in sorted(folder.glob('run/*/vis_data/scalars.json')) for line in file.open()]
    trained = [json.loads(line)[metric] for line in scalars if metric in line]
    (tested,) = (json.loads(file.read_text())[metric] for file in folder.glob('run/*/*.json'))
    logs = ''.join(log.read_text() for log in folder.glob('run/*/*.log'))
    table = logs.split('last evaluation\n')[1].split('checkpoints and logs')[0]
    assert f'{tested:.3f}' in table
    assert metric in table
    assert trained == pytest.approx([tested])


def test_segmentor(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(SEGMENTOR, shapes, tmp_path, 'mIoU')
    assert 'model.backbone.norm_cfg.type SyncBN -> BN' in capsys.readouterr().out


def test_segmentor_with_another_number_of_classes(shapes: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / 'config.py').write_text(SEGMENTOR.replace('num_classes=7', 'num_classes=21'))
    assert main(['train', str(tmp_path / 'config.py'), '--data', str(shapes)]) == 2
    assert 'model.decode_head.num_classes=21, but the data set has 7 classes' in capsys.readouterr().err


def test_one_image_per_batch_behind_a_pooling_to_one_pixel(shapes: Path, tmp_path: Path, capsys) -> None:
    head = "type='ASPPHead', dilations=(1, 2), in_channels=2048, channels=8, num_classes=7, norm_cfg=NORM"
    text = SEGMENTOR.replace(
        "type='FCNHead', in_channels=2048, channels=8, num_convs=1, num_classes=7, norm_cfg=NORM", head
    )
    assert text != SEGMENTOR
    epochs = text.replace("type='IterBasedTrainLoop', max_iters=2, val_interval=2", 'by_epoch=True, max_epochs=1')
    epochs = epochs.replace('InfiniteSampler', 'DefaultSampler')
    (tmp_path / 'steps.py').write_text(text)
    (tmp_path / 'epochs.py').write_text(epochs)

    def train(config: str, batch_size: int) -> int:
        where = ['--data', str(shapes), '--work-dir', str(tmp_path / config)]
        return main(
            [
                'train',
                str(tmp_path / f'{config}.py'),
                *where,
                '--cfg-options',
                f'train_dataloader.batch_size={batch_size}',
            ]
        )

    for config, batch_size in (('steps', 1), ('epochs', 1), ('epochs', 5)):  # there are six images
        assert train(config, batch_size) == 2
        assert 'batch' in capsys.readouterr().err
    assert train('steps', 5) == 0


def test_classifier(pets: Path, tmp_path: Path) -> None:
    run(CLASSIFIER, pets, tmp_path, 'accuracy/top1')

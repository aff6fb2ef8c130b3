"""Whole runs on data in the layouts that people have: trained, tested, resumed, and tested on other data."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mmengine.visualization import Visualizer
from PIL import Image

from tests.data.own import relaid
from tests.data.own.relaid import Photo
from tests.support.cli import CliResult, run_cli

QUICK = [f'{part}_dataloader.num_workers=0' for part in ('train', 'val', 'test')]


def at(text: str) -> Callable[[Photo], str]:
    return lambda photo: text.format(split=photo.split, stem=photo.path.stem)


def voc(root: Path, shapes: Path) -> None:
    relaid.voc(root, relaid.from_coco(shapes, 12), at('pics/{stem}.jpg'), at('labels/{stem}.xml'))


def yolo(root: Path, shapes: Path) -> None:
    relaid.yolo(root, relaid.from_coco(shapes, 12), at('images/{split}/{stem}.jpg'), at('labels/{split}/{stem}.txt'))


def coco(root: Path, shapes: Path, name: Callable[[str], str] = str) -> None:
    photos = relaid.from_coco(shapes, 12)
    for photo in photos:
        photo.objects = [(name(label), box, polygons) for label, box, polygons in photo.objects]
    files = {f'{split}.json': [split] for split in ('train', 'val')}
    relaid.coco(root, photos, at('a b/{stem}.jpg'), files, at('{stem}.jpg'))


def folders(root: Path, shapes: Path) -> None:
    for number, photo in enumerate(relaid.from_coco(shapes, 12)):
        relaid.link(photo, root / ('a cat', 'dog', 'eel')[number % 3] / f'{photo.path.stem} 1.jpg')


def masks(root: Path, shapes: Path, change: Callable[[np.ndarray], Image.Image]) -> None:
    voc2012 = shapes / 'VOCdevkit/VOC2012'
    names = {s: (voc2012 / f'ImageSets/Segmentation/{s}.txt').read_text().split() for s in ('train', 'val')}
    pairs = [
        (voc2012 / f'JPEGImages/{name}.jpg', voc2012 / f'SegmentationClass/{name}.png', split)
        for split, found in names.items()
        for name in found
    ]
    relaid.masks(root, pairs, 'images/{split}/{stem}.jpg', 'masks/{split}/{stem}.png', change)


def black_and_white(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where((labels > 0) & (labels < 255), 255, 0).astype(np.uint8))


LAYOUTS = {
    'voc': (voc, 'demo/faster_rcnn_r2n50', 'coco/bbox_mAP'),
    'yolo': (yolo, 'demo/faster_rcnn_r2n50', 'coco/bbox_mAP'),
    'folders': (folders, 'cifar100/coarse_mini_res2next20', 'accuracy/top1'),
    'masks': (partial(masks, change=Image.fromarray), 'demo/deeplabv3plus_r2n50', 'mIoU'),
    'salient': (partial(masks, change=black_and_white), 'demo/dss_r2n50', 'maxF'),
}


@pytest.fixture(autouse=True)
def _no_visualizer() -> None:
    Visualizer._instance_dict.clear()
    for kind in Visualizer.__subclasses__():  # each run writes into its own folder
        kind._instance_dict.clear()


def train(config: str, data: Path, *flags: str, epochs: int = 1) -> CliResult:
    options = ('--cfg-options', *QUICK, f'train_cfg.max_epochs={epochs}')
    return run_cli('train', config, '--data', data, *flags, *options)


def evaluate(*args: str | Path) -> dict[str, float]:
    """Test by the command line and return the metrics."""
    done = run_cli('test', *args, '--work-dir', 'tested', '--cfg-options', *QUICK)
    assert done.status == 0, done.err
    return json.loads(max(Path('tested').glob('2*/*.json')).read_text())


@pytest.mark.parametrize('name', LAYOUTS)
def test_a_folder_trains_and_tests_alike(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, config, metric = LAYOUTS[name]
    monkeypatch.chdir(tmp_path)
    write(Path('my data'), shapes)
    done = train(config, Path('my data'))
    assert done.status == 0, done.err
    (run,) = Path('work_dirs').iterdir()
    assert run.name == f'{Path(config).name}-my_data'
    scalars = [json.loads(line) for file in run.glob('*/vis_data/scalars.json') for line in file.open()]
    checkpoint = run / 'epoch_1.pth'
    # The written config needs no --data; the original one finds the same images by it.
    assert evaluate(run / f'{run.name}.py', checkpoint)[metric] == pytest.approx(scalars[-1][metric])
    assert evaluate(config, checkpoint, '--data', 'my data')[metric] == scalars[-1][metric]

"""Whole runs on data in the layouts that people have: trained, tested, resumed, and tested on other data."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from mmres2net.data.layout import PARTS
from mmres2net.data.own.dataset import recognize
from mmres2net.engine.config import load_config
from mmres2net.engine.own_data.flag import data_name, find_own
from mmres2net.engine.resume import held
from tests.data.own import relaid
from tests.engine.demo import CONFIG
from tests.engine.demo import SMALL as SMALL_DEMO
from tests.support.cli import CliResult, run_cli

QUICK = [f'{part}_dataloader.num_workers=0' for part in ('train', 'val', 'test')]


def voc(root: Path, shapes: Path) -> None:
    relaid.voc(root, relaid.from_coco(shapes), 'pics/{stem}.jpg', 'labels/{stem}.xml')


def yolo(root: Path, shapes: Path) -> None:
    relaid.yolo(root, relaid.from_coco(shapes), 'images/{split}/{stem}.jpg', 'labels/{split}/{stem}.txt')


def coco(root: Path, shapes: Path) -> None:
    files = {f'{split}.json': [split] for split in relaid.SPLITS}
    relaid.coco(root, relaid.from_coco(shapes), 'a b/{stem}.jpg', files, '{stem}.jpg')


def folders(root: Path, shapes: Path) -> None:
    for number, photo in enumerate(relaid.from_coco(shapes)):
        relaid.link(photo, root / ('a cat', 'dog', 'eel')[number % 3] / f'{photo.path.stem} 1.jpg')


def masks(root: Path, shapes: Path) -> None:
    places = 'images/{split}/{stem}.jpg', 'masks/{split}/{stem}.png'
    relaid.masks(root, relaid.from_voc12(shapes), *places, Image.fromarray)


def salient(root: Path, shapes: Path) -> None:
    places = 'images/{split}/{stem}.jpg', 'masks/{split}/{stem}.png'
    relaid.masks(root, relaid.from_voc12(shapes), *places, relaid.binary)


BACKBONE = ('demo/faster_rcnn_r50', '--backbone', 'res2net50_26w_4s')
SMALL = 'cifar100/coarse_mini_res2next20'
LAYOUTS = {
    'voc': (voc, ('demo/faster_rcnn_r2n50',), 'coco/bbox_mAP'), 'yolo': (yolo, BACKBONE, 'coco/bbox_mAP'),
    'masks': (masks, ('demo/deeplabv3plus_r2n50',), 'mIoU'), 'salient': (salient, ('demo/dss_r2n50',), 'maxF'),
}  # fmt: skip


def train(config: str, data: str | Path, *flags: str, epochs: int = 1) -> CliResult:
    options = ('--cfg-options', *QUICK, f'train_cfg.max_epochs={epochs}')
    return run_cli('train', config, '--data', data, *flags, *options)


def evaluate(*args: str | Path, options: Sequence[str] = ()) -> dict[str, float]:
    done = run_cli('test', *args, '--work-dir', 'tested', '--cfg-options', *QUICK, *options)
    assert done.status == 0, done.err
    return json.loads(max(Path('tested').glob('2*/*.json')).read_text())


@pytest.mark.parametrize('name', LAYOUTS)
def test_a_folder_trains_and_tests_alike(name, shapes, tmp_path, monkeypatch) -> None:
    write, (config, *flags), metric = LAYOUTS[name]
    monkeypatch.chdir(tmp_path)
    write(Path('my data'), shapes)
    done = train(config, 'my data', *flags)
    assert done.status == 0, done.err
    (run,) = Path('work_dirs').iterdir()
    assert run.name == '-'.join([Path(config).name, *flags[1:], 'my_data'])
    scalars = [json.loads(line) for file in run.glob('*/vis_data/scalars.json') for line in file.open()]
    checkpoint = run / 'epoch_1.pth'
    # The written config needs no --data; the original one finds the same images by it.
    assert evaluate(run / f'{run.name}.py', checkpoint)[metric] == pytest.approx(scalars[-1][metric])
    assert evaluate(config, checkpoint, '--data', 'my data', *flags)[metric] == scalars[-1][metric]


def test_the_layout_makes_no_difference(trained_demo, shapes, tmp_path, monkeypatch) -> None:
    """Trained on the data set of the config; its classes have another order than those of the folder."""
    monkeypatch.chdir(tmp_path)
    coco(Path('same'), shapes)
    arguments = (CONFIG, trained_demo / 'epoch_1.pth', '--data')
    first, second = (evaluate(*arguments, data, options=SMALL_DEMO) for data in (shapes, 'same'))
    compared = [key for key in first if 'mAP' in key and key[-2:] not in ('_s', '_m', '_l')]
    assert first['coco/bbox_mAP_50'] > 0
    assert [second[key] for key in compared] == pytest.approx([first[key] for key in compared])


def test_the_data_file_of_the_page_is_read(shapes: Path, tmp_path: Path) -> None:
    voc(tmp_path, shapes)
    names = sorted(path.stem for path in tmp_path.glob('labels/*.xml'))
    (tmp_path / 'train.txt').write_text('\n'.join(names[:10]))
    (tmp_path / 'val.txt').write_text('\n'.join(names[10:15]))
    page = (Path(__file__).parents[3] / 'docs/own-data.md').read_text()
    text = page.split('```yaml')[1].split('```')[0]
    (tmp_path / 'cells.yaml').write_text(
        text.replace('/data/cells', str(tmp_path)).replace('[red, white]', '[disc, star]')
    )
    data = recognize(tmp_path / 'cells.yaml')
    assert (data.classes, [one.images for one in data.splits.values()]) == (('disc', 'star'), [10, 5])


def test_folders_of_other_classes_in_the_layout_of_the_config_are_own_data(shapes: Path, tmp_path: Path) -> None:
    for split in ('train', 'val'):  # as ImageNet's
        folders(tmp_path / split, shapes)
    for name in ('imagenet/res2net50_26w_4s', 'cifar10/res2next20_2c7w4s'):
        data = find_own(load_config(name), str(tmp_path), name, PARTS)
        assert data
        assert data.classes == ('a cat', 'dog', 'eel')
    for number in range(7):  # now as many as CIFAR-10 has
        for split in ('train', 'val'):
            shutil.copytree(tmp_path / split / 'eel', tmp_path / split / f'eel {number}')
    data = find_own(load_config(name), str(tmp_path), name, PARTS)
    assert data
    assert len(data.classes) == 10


def test_two_data_files_of_a_folder_have_work_dirs_of_their_own(tmp_path: Path) -> None:
    names = [data_name(tmp_path / name) for name in ('', 'data.yaml', 'cells.yaml', 'red.yml', 'instances.json')]
    assert names == [tmp_path.name, tmp_path.name, 'cells', 'red', 'instances']


@pytest.fixture(scope='module')
def classifier(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp('classifier')
    folders(place / 'animals', shapes)
    done = run_cli('train', SMALL, '--data', 'animals', '--cfg-options', *QUICK, 'train_cfg.max_epochs=1', cwd=place)
    assert done.status == 0, done.err
    return place


@pytest.fixture
def copied(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(classifier, tmp_path / 'copy', symlinks=True)
    monkeypatch.chdir(tmp_path / 'copy')
    return Path('work_dirs/coarse_mini_res2next20-animals')


def test_a_run_resumes_and_is_never_overwritten(copied: Path, shapes: Path) -> None:
    written = (copied / 'data/train.txt').stat().st_mtime_ns
    yolo(Path('other'), shapes)
    folders(Path('other animals'), shapes)
    refused = train(SMALL, 'other animals', '--work-dir', str(copied))
    assert (refused.status, '--overwrite' in refused.err) == (2, True)
    with held(copied):  # by a run on these data
        assert train(SMALL, 'other animals', '--work-dir', str(copied), '--resume').status == 2
    assert (copied / 'data/train.txt').stat().st_mtime_ns == written
    assert train(SMALL, 'animals', '--resume', epochs=2).status == 0
    assert (copied / 'epoch_2.pth').is_file()


def test_classes_of_other_data_are_matched_by_name(copied: Path) -> None:
    shutil.copytree('animals/eel', 'pond/train/eel')
    shutil.copytree('animals/dog', 'pond/train/dog')
    shutil.copytree('animals/dog', 'pond/val/dog')
    checkpoint = copied / 'epoch_1.pth'
    evaluate(SMALL, checkpoint, '--data', 'pond')
    assert {line[-1] for line in Path('tested/test_data/val.txt').read_text().split('\n') if line} == {'1'}
    shutil.copytree('animals', 'zoo')
    for image in Path('zoo').rglob('*.jpg'):
        image.rename(image.with_stem(f'{image.stem}_zoo'))
    evaluate(copied / f'{copied.name}.py', checkpoint, '--data', 'zoo')  # the written config lists the old images
    assert '_zoo' in Path('tested/test_data/val.txt').read_text()
    Path('pond/train/dog').rename('pond/train/zebra')
    Path('pond/val/dog').rename('pond/val/zebra')
    options = ('--cfg-options', *QUICK, 'train_cfg.max_epochs=1', f'load_from={checkpoint}')
    started = run_cli('train', SMALL, '--data', 'pond', *options)
    assert (started.status, 'head.fc.weight' in started.out) == (0, True), started.err
    refused = run_cli('test', SMALL, checkpoint, '--data', 'pond')
    assert (refused.status, 'zebra' in refused.err) == (2, True)


def test_export_and_maps_take_classes_and_images_from_the_data(copied: Path) -> None:
    flags = (SMALL, str(copied / 'epoch_1.pth'), '--data', 'animals')
    assert run_cli('cam', *flags, '--class', 'eel').status == 0
    assert len(list(Path('cam').rglob('*.png'))) == len((copied / 'data/val.txt').read_text().splitlines())
    done = run_cli('export', *flags, '--to', 'torchscript')
    assert (done.status, 'drawn scenes' in done.out) == (0, False), done.out + done.err


@pytest.mark.parametrize('config', ['faster_rcnn_r2n50', 'mmdet::panoptic-fpn_r50_fpn_1x_coco', 'deeplabv3plus_r2n50'])
def test_data_of_another_task_name_a_config_that_fits(config: str, classifier: Path) -> None:
    refused = run_cli('train', config, '--data', 'animals', cwd=classifier)
    assert (refused.status, 'imagenet/res2net50_26w_4s' in refused.err) == (2, True)

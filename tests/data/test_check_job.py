"""The check of whole data sets: counts, entries that are named, samples of large sets, memory, drawings, real data."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO

from mmres2net.data.check import before
from mmres2net.data.check.before import check_before_training
from mmres2net.data.check.draw import LEAST, color_of, draw_sample, draw_samples
from mmres2net.data.check.job import ERRORS, NOTES, Report, check_splits
from mmres2net.data.formats.base import Finding
from mmres2net.data.formats.read import read_splits
from mmres2net.data.layout import point_at
from mmres2net.drawing import GREY
from mmres2net.engine.config import load_config
from tests.data.tiny_sets import TinySet, coco_set, draw, folder_set, mask_set, voc_set
from tests.support.realdata import data_root


def check(cfg: Config, *parts: str, **options: Any) -> list[Report]:
    return check_splits(read_splits(cfg, parts or ('train', 'val', 'test')), **options)


def entries(report: Report) -> dict[str, list[tuple[str, str]]]:
    return {kind: [(f.where.rsplit('/', 1)[-1], f.what) for f in found] for kind, found in report.kinds().items()}


def test_counts_of_the_embedded_set(root: Path, coco: dict[str, COCO]) -> None:
    cfg = point_at(load_config('demo/mask_rcnn_r2n50.py'), root)
    train, val = check(cfg)
    assert (train.split.part, val.split.part) == ('train', 'val, test')
    for report, split in ((train, 'train'), (val, 'val')):
        annotations = list(coco[split].anns.values())
        names = [coco[split].cats[entry['category_id']]['name'] for entry in annotations]
        assert report.count(ERRORS) == 0
        assert (report.images, report.annotations) == (len(coco[split].imgs), len(annotations))
        assert report.counts == {name: names.count(name) for name in set(names)}
        filled = {entry['image_id'] for entry in annotations}
        assert report.kept == (len(filled) if split == 'train' else report.images)


def test_counts_of_pixels(tmp_path: Path) -> None:
    made = mask_set(tmp_path)
    path = tmp_path / 'ann/train/0.png'
    mask = np.array(Image.open(path))
    mask[:5] = 255
    Image.fromarray(mask).save(path)
    pixels = np.concatenate([np.asarray(Image.open(p)).ravel() for p in sorted((tmp_path / 'ann/train').iterdir())])
    [report] = check(made.cfg, 'train')
    assert report.counts == {'ground': int((pixels == 0).sum()), 'road': int((pixels == 1).sum())}
    assert report.ignored == 5 * mask.shape[1]


@pytest.mark.parametrize(
    ('changes', 'name'), [(dict(reduce_zero_label=True), 'road'), (dict(type='PascalVOCDataset'), 'aeroplane')]
)
def test_classes_that_are_left_out_are_ignored(changes: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Of zero with ``reduce_zero_label``; of classes that the data set class has and the config does not."""
    made = mask_set(tmp_path)
    plain = check(made.cfg, 'val')[0]
    (tmp_path / 'list.txt').write_text('0\n1\n')
    made.dataset('val').update(changes, metainfo=dict(classes=(name,)), ann_file='list.txt')
    [report] = check(made.cfg, 'val')
    assert report.findings == []
    assert (report.counts, report.ignored) == ({name: plain.counts['road']}, plain.counts['ground'])


def test_each_finding_names_file_and_entry(tmp_path: Path) -> None:
    made = coco_set(tmp_path)
    first, second = made.content['train']['annotations'][:2]
    first['bbox'], second['id'] = [5, 5, 0, 30], first['id']
    made.content['train']['images'][3]['width'] = 90
    made.write()
    [report] = check(made.cfg, 'train')
    assert entries(report) == {
        'duplicate annotation id': [('annotations[1]', entries(report)['duplicate annotation id'][0][1])],
        'wrong image size': [('3.jpg', '96x64 pixels, but annotated as 90x64')],
        'annotation left out': [('0.jpg annotations[0]', '5, 5 to 5, 35: 0 wide, 30 high')],
    }


def test_copies_of_training_images_in_validation(tmp_path: Path) -> None:
    made = coco_set(tmp_path)
    shutil.copy(tmp_path / 'train/3.jpg', tmp_path / 'val/1.jpg')
    made.write()
    copied = check(made.cfg)[1].kinds()['same content in training and evaluation']
    assert copied == [Finding(copied[0].kind, str(tmp_path / 'val/1.jpg'), f'equal to {tmp_path / "train/3.jpg"}')]
    both = [made.dataset().to_dict(), dict(made.dataset().to_dict(), pipeline=[])]
    made.cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    [twice] = check(made.cfg, 'train')  # what two data sets read alike is read once
    assert (twice.split.part, twice.images, twice.count(ERRORS)) == ('train[0], train[1]', 4, 0)


@pytest.mark.parametrize(('decode', 'seen'), [(None, [1, 2]), (2, [2]), (1, []), (0, [])])
def test_a_sample_is_decoded(tmp_path: Path, decode: int | None, seen: list[int]) -> None:
    """Of four images the second and the third are damaged in the middle, which only decoding shows."""
    made = coco_set(tmp_path)
    for i in (1, 2):
        path = draw(tmp_path / f'train/{i}.png', i)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        made.content['train']['images'][i]['file_name'] = path.name
    made.write()
    [report] = check(made.cfg, 'train', decode=decode)
    found = report.kinds().get('unreadable image', [])
    assert [Path(f.where).name for f in found] == [f'{i}.png' for i in seen]


def test_formats_of_their_own_have_their_images_checked(tmp_path: Path) -> None:
    made = coco_set(tmp_path)
    instances = [dict(bbox=[5, 5, 20, 20], bbox_label=0, ignore_flag=0)]
    listed = [dict(img_path=f'{tmp_path}/train/{i}.jpg', height=64, width=96, instances=instances) for i in range(4)]
    (tmp_path / 'own.json').write_text(json.dumps(dict(metainfo=dict(classes=['car', 'dog']), data_list=listed)))
    (tmp_path / 'train/0.jpg').unlink()
    made.dataset().pop('data_prefix')
    made.dataset().update(type='BaseDetDataset', ann_file='own.json')
    assert set(check(made.cfg, 'train')[0].kinds()) == {'missing image'}


def test_headers_are_read_of_all(tmp_path: Path) -> None:
    made = coco_set(tmp_path)
    (tmp_path / 'train/0.jpg').write_text('text')  # the only one that is decoded
    (tmp_path / 'train/1.jpg').write_bytes((tmp_path / 'train/1.jpg').read_bytes()[:-60])
    (tmp_path / 'train/2.jpg').unlink()
    draw(tmp_path / 'train/3.jpg', 3, size=(88, 64))
    made.write()
    [report] = check(made.cfg, 'train', decode=0)
    assert {kind: len(found) for kind, found in report.kinds().items() if kind in ERRORS} == {
        'unreadable image': 2, 'missing image': 1, 'wrong image size': 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ('value', 'decode', 'error', 'note'),
    [
        (0, None, 'class without a pixel', ''), (0, 2, '', 'class without an object'),
        (255, 2, 'masks of 0 and 255', ''), (9, 2, 'mask value without class', 'class without an object'),
    ],
)  # fmt: skip
def test_missing_class_needs_all_masks(value: int, decode: int | None, error: str, note: str, tmp_path: Path) -> None:
    made = mask_set(tmp_path, lambda mask: mask * value)
    [report] = check(made.cfg, 'train', decode=decode)
    assert (report.masks_read, set(report.kinds())) == (decode or 4, {error, note} - {''})
    assert (error in {*ERRORS, ''}, note in {*NOTES, ''}) == (True, True)
    both = [made.dataset('val').to_dict(), made.dataset().to_dict()]  # one set that was sampled is enough
    made.cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    assert [set(r.kinds()) for r in check(made.cfg, 'train', decode=decode)] == [{error, note} - {''}] * 2


def test_remembered_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(before, 'LEAST', 3)
    made = coco_set(tmp_path)
    made.content['train']['annotations'][0]['area'] = 0
    made.write()
    assert len(check_before_training(made.cfg, ['train', 'val'])) == 2
    first = capsys.readouterr().err
    assert 'area is 0' in first
    assert check_before_training(made.cfg, ['train', 'val']) == []
    assert capsys.readouterr().err.splitlines()[1:] == first.splitlines()[1:]  # notes are said again
    os.utime(tmp_path / 'train/2.jpg', (1, 1))
    assert len(check_before_training(made.cfg, ['train', 'val'])) == 2
    (tmp_path / 'train/2.jpg').unlink()
    for _ in range(2):  # errors are not remembered
        assert before.explain_failure(made.cfg, ['train']) != ''


def drawn(made: TinySet) -> list[np.ndarray]:
    made.write()
    files = draw_samples(check(made.cfg, 'train')[0], made.root / 'drawn', 8)
    assert [path.name for path in files] == [f'train_{i + 1:02d}.jpg' for i in range(len(files))]
    return [np.asarray(Image.open(path)) for path in files]


def test_objects_are_drawn_where_they_are(tmp_path: Path) -> None:
    made = coco_set(tmp_path, masks=True)
    made.write()
    split = check(made.cfg, 'train')[0].split
    image, scale = draw_sample(split, split.samples[0]), LEAST / 96
    assert (image.shape[1], image.shape[0] > 64 * scale) == (LEAST, True)
    for name, (x, y) in zip(('car', 'dog'), ((10, 10), (50, 20)), strict=True):
        left = image[round(y * scale) : round((y + 20) * scale), round(x * scale) - 3 : round(x * scale) + 6]
        assert (np.abs(left.astype(int) - color_of(('car', 'dog'), name)).max(-1) < 40).mean() > 0.15
    assert color_of(('car', 'dog'), 'cow') == GREY
    for make in (voc_set, folder_set):
        assert [max(image.shape) for image in drawn(make(tmp_path / make.__name__))] == [LEAST] * 4


def test_hostile_annotations_are_not_drawn(tmp_path: Path) -> None:
    changes = [
        {'bbox': [float('nan'), 1, 5, 5]}, {'bbox': [1, 1, float('inf'), 5]}, {'bbox': [-1e300, 1, 1e300, 5]},
        {'segmentation': [[float('nan')] * 6]}, {'segmentation': {'size': [2**30, 2**30], 'counts': [2**60]}},
        {'segmentation': {'size': [2**30, 2**30], 'counts': 'P'}}, {'segmentation': 'text'}, {'segmentation': [[1, 2]]},
        {'category_id': 99}, {'bbox': 'text'},
    ]  # fmt: skip
    made = coco_set(tmp_path, masks=True)
    first = made.content['train']['annotations'][0]
    made.content['train']['annotations'] = [dict(first, id=i, image_id=i % 4 + 1) | c for i, c in enumerate(changes)]
    assert len(drawn(made)) == 4


def real(name: str, config: str) -> list[Report]:
    return check(point_at(load_config(config), data_root(name)))


@pytest.mark.realdata
def test_coco_mini() -> None:
    train, val = real('coco_mini', 'faster_rcnn_r2n50.py')
    assert (train.images, train.annotations, train.count(ERRORS)) == (128, 939, 0)
    assert (val.images, val.annotations, val.count(ERRORS)) == (80, 815, 0)
    assert (len(train.split.classes), len(train.counts), len(val.counts)) == (80, 71, 80)
    assert train.counts['person'] == 259

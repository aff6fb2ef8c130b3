"""``convert-data``: boxes survive the way through all formats; PairedSegDataset is read by checks as by training."""

import json
from pathlib import Path

import pytest
import yaml
from mmengine.registry import DATASETS
from PIL import Image

from mmres2net.data.formats.read import read_splits
from mmres2net.data.own.dataset import recognize
from mmres2net.data.own.standard import write_standard
from tests.data.own import relaid
from tests.data.tiny_sets import coco_set, config, mask_set, voc_set
from tests.support.cli import run_cli
from tests.support.folders import contents
from tests.support.realdata import data_root


@pytest.mark.parametrize('name', ['shapes', 'coco_mini'])
def test_boxes_survive_all_formats(name: str, shapes: Path, tmp_path: Path) -> None:
    source = shapes if name == 'shapes' else data_root(name)
    photos = relaid.from_coco(source)
    files = {f'instances_{split}.json': [split] for split in relaid.SPLITS}
    relaid.coco(tmp_path / 'set', photos, '{split}/{stem}.jpg', files, '{stem}.jpg')
    before = contents(tmp_path / 'set')
    path = tmp_path / 'set'
    for target in ('coco', 'voc', 'yolo', 'coco'):
        out = tmp_path / f'{target}{path.name}'
        result = run_cli('convert-data', path, '--to', target, '--out', out, *(['--copy'] if target == 'voc' else []))
        assert result.status == 0, result.err
        assert run_cli('convert-data', path, '--to', target, '--out', out).status == 2
        path = out
    for split in relaid.SPLITS:
        first, last = (
            relaid.boxes_in(folder / f'annotations/instances_{split}.json', folder / split)
            for folder in (tmp_path / 'cocoset', path)
        )
        assert set(first) == set(last) == {photo.path.stem for photo in photos if photo.split == split}
        for stem, objects in first.items():
            relaid.assert_close(last[stem], objects, 1.01)
    assert contents(tmp_path / 'set') == before


def test_polygons_survive_yolo_outside_of_the_folder(shapes: Path, tmp_path: Path) -> None:
    flags = ('convert-data', shapes / 'annotations/instances_val2017.json', '--to', 'yolo', '--out')
    assert (run_cli(*flags, tmp_path / 'y').status, run_cli(*flags, shapes / 'y').status) == (0, 2)
    assert not (shapes / 'y').exists()
    names = yaml.safe_load((tmp_path / 'y/data.yaml').read_text())['names']
    data = recognize(tmp_path / 'y')
    assert (data.task, list(data.classes)) == ('instances', [names[i] for i in range(len(names))])


def test_checks_read_pairs_as_training_does(tmp_path: Path) -> None:
    mask_set(tmp_path / 'set')
    (tmp_path / 'set/classes.txt').write_text('ground\nroad')
    (tmp_path / 'set/img/train/0.jpg').rename(tmp_path / 'set/img/train/0.JPG')
    data = write_standard(recognize(tmp_path / 'set'), tmp_path / 'out')
    node = dict(
        type='mmres2net.PairedSegDataset', data_root=str(data.root), ann_file=str(data.splits['train'].annotation),
        metainfo=dict(classes=data.classes, palette=data.palette), pipeline=[],
    )  # fmt: skip
    split = read_splits(config('mmseg', node, node, {}, {}), ['train'])[0]
    trained = [DATASETS.build(node)[i] for i in range(4)]
    assert [(s.image, s.mask) for s in split.samples] == [(s['img_path'], s['seg_map_path']) for s in trained]
    assert all(Image.open(s['seg_map_path']).size == Image.open(s['img_path']).size for s in trained)
    assert (split.unit, split.mask_values) == ('pixels', {0: 'ground', 1: 'road', 255: ''})


@pytest.mark.parametrize(('key', 'value'), [('bbox', [1, float('nan'), 5, 5]), ('category_id', 99), ('image', None)])
def test_wrong_data_are_not_converted(key: str, value: object, tmp_path: Path) -> None:
    made = coco_set(tmp_path / 'set')
    if value is None:
        (tmp_path / 'set/train/0.jpg').unlink()
    else:
        made.content['train']['annotations'][0][key] = value
    made.write()
    result = run_cli('convert-data', tmp_path / 'set', '--to', 'voc', '--out', tmp_path / 'out')
    assert (result.status, list(tmp_path.iterdir())) == (2, [tmp_path / 'set']), result.err


def test_difficult_objects_are_crowds_stay_in_voc_and_leave_yolo(tmp_path: Path) -> None:
    voc_set(tmp_path / 'set')
    path = tmp_path / 'set/Annotations/train0.xml'
    path.write_text(path.read_text().replace('<difficult>0', '<difficult>1', 1))
    data = write_standard(recognize(tmp_path / 'set'), tmp_path / 'out')
    entries = json.loads(data.splits['train'].annotation.read_text())['annotations']
    assert [entry['iscrowd'] for entry in entries] == [1, *[0] * 7]
    assert entries[0]['bbox'] == [9, 9, 31, 21]  # 10 to 40 and 10 to 30, both ends included
    for target in ('voc', 'yolo'):
        assert run_cli('convert-data', tmp_path / 'set', '--to', target, '--out', tmp_path / target).status == 0
    again = recognize(tmp_path / 'voc').splits['train'].source
    ignored = [one.ignored for sample in again.samples for one in again.parse(sample)[1]]
    assert ignored == [True, *[False] * 7]
    lines = [len((tmp_path / f'yolo/labels/train/train{i}.txt').read_text().splitlines()) for i in range(4)]
    assert lines == [1, 2, 2, 2]

"""Data that are ambiguous, wrong or hostile: one clear error, or the right reading; and the data file."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from mmres2net.data.own.data_file import KEYS, PARTS
from mmres2net.data.own.dataset import recognize
from mmres2net.data.own.standard import write_standard
from mmres2net.errors import UserError
from tests.data.tiny_sets import OBJECT, XML, coco_set, draw, folder_set, mask_set, voc_set
from tests.support.cli import run_cli
from tests.support.folders import contents

ROOT = Path(__file__).resolve().parents[3]


def coco(root: Path) -> None:
    coco_set(root).write()
    (root / 'config.py').unlink()


def yolo(root: Path) -> None:
    for i in range(6):
        draw(root / f'images/{i}.jpg', i)
        (root / 'labels').mkdir(exist_ok=True)
        (root / f'labels/{i}.txt').write_text(f'\ufeff{i % 2} 0.5 0.5 0.25 0.5\n')
    (root / 'classes.txt').write_text('car\ndog\n')


def nothing(root: Path) -> None:
    root.mkdir(exist_ok=True)


def write(name: str, text: str | bytes) -> Callable[[Path], Any]:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return change


def all_of(*changes: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda root: [change(root) for change in changes]


def replace(name: str, old: str, new: str) -> Callable[[Path], Any]:
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new))


def copy(old: str, new: str) -> Callable[[Path], Any]:
    return lambda root: shutil.copy(root / old, root / new)


def remove(name: str) -> Callable[[Path], Any]:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def one_color(mode: str, color: Any) -> Callable[[Path], Any]:
    return lambda root: Image.new(mode, (96, 64), color).save(root / 'ann/train/0.png')


def photos(image: str, masks: str, *, mode: str = 'L', value: int = 255, deep: bool = False) -> Callable[[Path], Any]:
    def make(root: Path) -> None:
        for i in range(5):
            draw(root / image.format(i=i), i)
            mask = Image.new(mode, (96, 64))
            mask.paste(value if mode == 'L' else (value,) * 3, (20, 20, 60, 40))
            (root / masks.format(i=i)).parent.mkdir(parents=True, exist_ok=True)
            mask = Image.fromarray(np.asarray(mask, np.uint16)) if deep else mask
            mask.save(root / masks.format(i=i))

    return make


CAMVID = all_of(*(photos(f'{s}/{{i}}.png', f'{s}annot/{{i}}.png', value=1) for s in ('train', 'val')))
DRIVE = photos('images/{i}_training.tif', '1st_manual/{i}_manual1.gif')
EMPTY = XML.format(width=9, height=9, objects='')
ONE = XML.format(width=96, height=64, objects=OBJECT.format('{}', 9, 9, 40, 40))
TEXTS = [f'labels/{i}.txt' for i in range(6)]
KEYS_OF_COCO = '"images" "annotations" "categories"'
BOMB = 'a: &a [x, x]\nb: &b [*a, *a]\nformat: yolo\n'
# What is made, how it is changed, the exit status of check-data, and what it has to name.
CASES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], int, str]] = {
    'COCO': (coco, nothing, 0, 'COCO'), 'VOC': (voc_set, nothing, 0, 'VOC'), 'YOLO': (yolo, nothing, 0, 'YOLO'),
    'folders': (folder_set, nothing, 0, 'classification'), 'masks': (mask_set, nothing, 0, 'segmentation'),
    'no file': (nothing, nothing, 2, '0 files'),
    'no class': (voc_set, lambda r: [p.write_text(EMPTY) for p in r.rglob('*.xml')], 2, 'no object'),
    'images alone': (nothing, lambda root: draw(root / 'a.jpg', 1), 2, '1 of them images'),
    'two formats': (coco, yolo, 2, 'format: coco'),
    'two COCO files for training': (coco, copy('train.json', 'training.json'), 2, 'training.json'),
    'run in the data': (coco, all_of(write('run/last_checkpoint', ''), write('run/train.json', KEYS_OF_COCO)), 0, ''),
    'two files of classes': (yolo, write('obj.names', 'bus\ncar\n'), 2, 'obj.names'),
    'a class twice': (mask_set, write('classes.txt', 'road\nroad'), 2, 'road, road'),
    'folders of splits alone': (all_of(*map(write, ('train/0.png', 'val/0.png'), '  ')), nothing, 2, '2 of them'),
    'COCO class of validation alone': (coco, replace('val.json', '"car"', '"Car"'), 2, "'Car'"),
    'COCO class without a name': (coco, replace('train.json', '"car"', '" "'), 2, "' '"),
    'COCO without boxes': (coco, all_of(*(replace(f'{n}.json', 'bbox', 'b') for n in PARTS[:2])), 1, 'for instances'),
    'two label files of an image': (yolo, all_of(write('old/0.txt', '0 .5 .5 .5 .5')), 2, 'old/0.txt'),
    'one image': (nothing, all_of(lambda r: draw(r / 'a.jpg', 1), write('a.txt', '0 .5 .5 .5 .5')), 2, '1 image'),
    'one class': (yolo, write('classes.txt', 'car'), 1, 'label without class'),
    'loop of links': (yolo, lambda root: (root / 'labels/again').symlink_to(root), 0, 'YOLO'),
    'pipe': (yolo, lambda root: os.mkfifo(root / 'images/9.jpg'), 0, 'YOLO'),
    'nested JSON': (coco, write('train.json', KEYS_OF_COCO + '[' * 10**5), 2, 'train.json'),
    'COCO without images': (coco, all_of(remove('train'), remove('val')), 2, '0.jpg'),
    'COCO with a missing image': (coco, remove('train/0.jpg'), 1, 'missing image'),
    'VOC name in capitals': (voc_set, write('Annotations/train0.xml', ONE.format('Car')), 2, "'Car'"),
    'XML without image': (voc_set, remove('JPEGImages/train0.jpg'), 1, 'missing image'),
    'YOLO number too large': (yolo, write('labels/0.txt', '2 .5 .5 .1 .1'), 1, 'label without class'),
    'YOLO in pixels': (yolo, write('labels/0.txt', '0 50 50 20 20'), 1, 'broken annotation'),
    'YOLO with scores': (yolo, all_of(remove('classes.txt'), *map(write, TEXTS, ['0 1 1 1 1 1'] * 6)), 2, '6 numbers'),
    'YOLO with an empty file': (yolo, write('labels/0.txt', ''), 0, 'YOLO'),
    'label file without image': (yolo, write('labels/10.txt', '0 .5 .5 .1 .1'), 1, 'annotation without image'),
    'damaged image': (yolo, write('images/0.jpg', b'\xff\xd8'), 1, 'unreadable image'),
    'class of other files': (folder_set, write('train/owl/0.heic', 'x'), 0, 'train/owl/0.heic'),
    'class of validation alone': (folder_set, lambda r: (r / 'val/dog').rename(r / 'val/Dog'), 2, 'dog?'),
    'mask value without name': (mask_set, all_of(write('classes.txt', 'road'), one_color('L', 9)), 2, 'values 9'),
    'masks of equal names in folders of splits': (CAMVID, nothing, 0, 'up to 1'),
    'masks as JPEG': (photos('images/{i}.jpg', 'masks/{i}.jpg', mode='RGB'), nothing, 0, 'from 128'),
    'masks of 16 bits': (photos('images/{i}.jpg', 'masks/{i}.png', value=1, deep=True), nothing, 0, 'up to 1'),
    'masks with a common ending': (DRIVE, nothing, 0, 'foreground'),
    'two kinds of masks': (
        DRIVE, photos('images/{i}_training.tif', 'mask/{i}_training_mask.gif'), 2, 'images: FOLDER OR LIST',
    ),
    'gray levels': (photos('x/{i}.jpg', 'y/{i}.png', value=75), nothing, 2, 'y/0.png'),
    'masks in colors': (
        photos('x/{i}.jpg', 'y/{i}.png', mode='RGB', value=9),
        lambda root: Image.new('RGB', (96, 64), (9, 8, 7)).save(root / 'y/0.png'), 2, 'palette: [[0, 0, 0], [9, 8, 7]',
    ),
    'mask in other colors': (mask_set, all_of(write('classes.txt', 'a\nb'), one_color('RGB', (9, 8, 7))), 2, '#090807'),
    'data.yaml with an unknown key': (yolo, write('data.yaml', 'format: yolo\ntrian: images\n'), 2, "'trian'"),
    'data.yaml of keypoints': (yolo, write('data.yaml', 'names: [a]\ntrain: x\nkpt_shape: [9, 2]'), 2, 'kpt_shape'),
    'data.yaml with aliases': (yolo, write('data.yaml', BOMB), 2, 'aliases'),
    'data.yaml that runs code': (yolo, write('data.yaml', '!!python/object/apply:os.system [ls]'), 2, 'data.yaml'),
    'data.yaml with a wrong count': (yolo, write('data.yaml', 'nc: 3\nnames: [a, b]\ntrain: images'), 2, 'nc'),
    'data.yaml with a gap': (yolo, write('data.yaml', 'names: {0: a, 2: b}\ntrain: images'), 2, '0, 2'),
    'data.yaml without the folder': (yolo, write('data.yaml', 'names: [a, b]\ntrain: pics'), 2, 'pics'),
    'data.yaml with numbers as names': (yolo, write('data.yaml', 'names: {0: 10, 1: 20}\ntrain: images'), 0, '20'),
    'data.yaml with yes and no': (yolo, write('data.yaml', 'names: [yes, no]\ntrain: images'), 2, 'True'),
    'data.yaml with one set for both': (
        yolo, write('data.yaml', 'names: [a, b]\ntrain: images\nval: .\\images'), 0, 'same set in training',
    ),
    'data.yaml with a list': (
        yolo, all_of(*map(write, ('images/7.jpg', 'other/7.jpg'), '  '),
                     write('mine.txt', '/a/images/7.jpg\n/a/images/1.jpg\nC:\\x\\images\\2.jpg\nx/y'),
                     write('data.yaml', 'names: [a, b]\ntrain: mine.txt')), 1, 'x/y',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_cases(name: str, tmp_path: Path) -> None:
    make, change, status, named = CASES[name]
    make(tmp_path / 'set')
    change(tmp_path / 'set')
    result = run_cli('check-data', tmp_path / 'set', '--samples', '1', cwd=tmp_path)
    assert result.status == status, result.out + result.err
    assert named in (result.err if status == 2 else result.out)
    if status == 1 and 'image' not in named:
        with pytest.raises(UserError):
            write_standard(recognize(tmp_path / 'set'), tmp_path / 'out')


def test_advised_data_file_is_read(tmp_path: Path) -> None:
    coco(tmp_path / 'set')
    yolo(tmp_path / 'set')
    with pytest.raises(UserError) as caught:
        recognize(tmp_path / 'set')
    text = str(caught.value).partition('format: coco')[2].replace('FOLDER, LIST OR JSON FILE', 'images')
    (tmp_path / 'mine.yaml').write_text(f'format: yolo{text}')
    data = recognize(tmp_path / 'mine.yaml')
    assert (data.format, data.splits['train'].images + data.splits['val'].images) == ('yolo', 6)


def test_data_file_decides(tmp_path: Path) -> None:
    coco(tmp_path / 'set')
    content = {'format': 'coco', 'path': 'set', 'train': 'val.json', 'classes': ['dog'], 'palette': [[1, 2, 3]]}
    content['val'] = {'images': 'train', 'annotations': 'train.json'}
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(content))
    data = recognize(tmp_path / 'mine.yaml')
    found = {name: (split.images, dict(split.counts)) for name, split in data.splits.items()}
    assert found == {'train': (2, {'dog': 2}), 'val': (4, {'dog': 4})}
    assert data.palette == ((1, 2, 3),)
    assert any('car.' in note for note in data.notes)


def test_seeds_differ(tmp_path: Path) -> None:
    for i in range(40):
        draw(tmp_path / f'set/{("cat", "dog")[i % 2]}/{i}.png', i)
    drawn = []
    for seed in (0, 0, 2):
        data = recognize(tmp_path / 'set', seed=seed)
        drawn.append(sorted(sample.image for sample in data.splits['val'].source.samples))
    assert (drawn[0] == drawn[1] != drawn[2], len(drawn[0])) == (True, 8)


def test_standard_form_is_reused_until_the_data_change(tmp_path: Path) -> None:
    yolo(tmp_path / 'set')
    before = contents(tmp_path / 'set')
    data = write_standard(recognize(tmp_path / 'set'), tmp_path / 'out')
    files = [split.annotation for split in data.splits.values()]
    times = [file.stat().st_mtime_ns for file in files]
    write_standard(recognize(tmp_path / 'set'), tmp_path / 'out')
    assert [file.stat().st_mtime_ns for file in files] == times
    write('labels/0.txt', '1 .5 .5 .1 .1\n1 .5 .5 .2 .2')(tmp_path / 'set')
    data = write_standard(recognize(tmp_path / 'set'), tmp_path / 'out')
    assert [file.stat().st_mtime_ns for file in files] != times
    assert sum(split.counts['dog'] for split in data.splits.values()) == 5
    write('labels/0.txt', before['labels/0.txt'])(tmp_path / 'set')
    assert contents(tmp_path / 'set') == before


def test_the_task_decides_and_has_to_fit(tmp_path: Path) -> None:
    voc_set(tmp_path)
    mask_set(tmp_path)
    (tmp_path / 'classes.txt').write_text('ground\nroad\n')
    assert recognize(tmp_path, task='segmentation').format == 'masks'
    assert recognize(tmp_path, task='detection').format == 'voc'
    for task in ('instances', 'classification', None):
        with pytest.raises(UserError):
            recognize(tmp_path, task=task)
    folder_set(tmp_path / 'of classes')
    with pytest.raises(UserError, match=r'folders, .* detection'):
        recognize(tmp_path / 'of classes', task='detection')


def test_schema_names_what_the_reader_reads() -> None:
    schema = json.loads((ROOT / 'docs/data-file.schema.json').read_text())
    assert (set(schema['properties']), schema['additionalProperties']) == (set(KEYS), False)


def test_a_category_that_groups_the_others_is_no_class(tmp_path: Path) -> None:
    made = coco_set(tmp_path / 'set')
    for content in made.content.values():
        groups = [{'id': 0, 'name': 'things', 'supercategory': 'none'}]
        content['categories'] = groups + [c | {'supercategory': 'things'} for c in content['categories']]
        content['annotations'] = [e | {'area': e['id'] % 2 and None} for e in content['annotations']]
    made.write().unlink()
    data = write_standard(recognize(tmp_path / 'set'), tmp_path / 'out')
    assert data.classes == ('car', 'dog')
    assert {e['area'] for e in json.loads(data.splits['val'].annotation.read_text())['annotations']} == {600}


def test_gray_masks_are_divided_at_128(tmp_path: Path) -> None:
    for value, objects in {150: 5 * 40 * 20, 100: 0}.items():
        photos(f'{value}/images/{{i}}.jpg', f'{value}/masks/{{i}}.jpg', mode='RGB', value=value)(tmp_path)
        Image.new('RGB', (96, 64), (255,) * 3).save(tmp_path / f'{value}/masks/0.jpg')
        data = write_standard(recognize(tmp_path / str(value)), tmp_path / f'{value}.out')
        found = sum(split.counts['foreground'] for split in data.splits.values()) - 96 * 64
        assert found == pytest.approx(objects * 4 / 5, rel=0.03)

"""The audit of detection data: a sound set has no findings, and each thing broken on purpose is found where it is."""

import copy
import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmres2net.data.audit.job import audit
from mmres2net.data.audit.read import read_splits
from mmres2net.data.audit.report import ERRORS, NOTES, Report
from mmres2net.data.shapes import CLASSES
from mmres2net.errors import UserError
from tests.support.realdata import data_root

Content = dict[str, Any]


def coco_config(root: Path, **changes: Any) -> Config:
    """Return a config that reads both splits of the shapes at ``root``."""

    def loader(split: str) -> dict:
        dataset = dict(
            type='CocoDataset',
            data_root=str(root),
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017/'),
            metainfo=dict(classes=CLASSES),
            pipeline=[dict(type='LoadImageFromFile')],
        )
        return dict(dataset=dataset | changes)

    val = loader('val')
    return Config(
        dict(
            default_scope='mmdet',
            model={},
            train_dataloader=loader('train'),
            val_dataloader=val,
            test_dataloader=copy.deepcopy(val),
        )
    )


def run(cfg: Config, *parts: str) -> list[Report]:
    return audit(read_splits(cfg, parts or ('train', 'val', 'test')), workers=2)


def found(report: Report) -> dict[str, list[tuple[str, str]]]:
    """Return the findings by kind, with the names of files instead of their paths."""
    return {
        kind: [(finding.where.rsplit('/', 1)[-1], finding.what) for finding in findings]
        for kind, findings in report.kinds().items()
    }


@pytest.fixture
def shapes(root: Path, tmp_path: Path) -> Path:
    """A copy of the set, to break."""
    for folder in ('annotations', 'train2017', 'val2017'):
        shutil.copytree(root / folder, tmp_path / 'shapes' / folder)
    return tmp_path / 'shapes'


@pytest.fixture
def content(shapes: Path) -> Content:
    return json.loads((shapes / 'annotations/instances_train2017.json').read_text())


def write(shapes: Path, content: Content) -> None:
    (shapes / 'annotations/instances_train2017.json').write_text(json.dumps(content))


def test_sound_set(root: Path, coco: dict[str, COCO]) -> None:
    train, val = run(coco_config(root))
    assert (train.part, val.part) == ('train', 'val, test')
    for report, split in ((train, 'train'), (val, 'val')):
        entries = list(coco[split].anns.values())
        names = [coco[split].cats[entry['category_id']]['name'] for entry in entries]
        assert report.count(ERRORS) == 0
        assert (report.images, report.annotations) == (len(coco[split].imgs), len(entries))
        assert report.crowd == sum(entry['iscrowd'] for entry in entries)
        assert report.counts == {name: names.count(name) for name in set(names)}
    empty = len(coco['train'].imgs) - len({entry['image_id'] for entry in coco['train'].anns.values()})
    assert {kind: len(findings) for kind, findings in train.kinds().items()} == {'image without annotations': empty}


def entry_of(content: Content, *, polygon: bool = True) -> tuple[int, Content]:
    """Return the first annotation with polygons, or with run lengths."""
    return next((i, e) for i, e in enumerate(content['annotations']) if isinstance(e['segmentation'], list) == polygon)


def with_bad_box(box: list[float]) -> Callable[[Content], int]:
    def change(content: Content) -> int:
        i, entry = entry_of(content)
        entry['bbox'] = box
        return i

    return change


def with_bad_mask(mask: Any) -> Callable[[Content], int]:
    def change(content: Content) -> int:
        i, entry = entry_of(content)
        entry['segmentation'] = mask
        return i

    return change


def without(key: str) -> Callable[[Content], int]:
    def change(content: Content) -> int:
        i, entry = entry_of(content)
        del entry[key]
        return i

    return change


def with_category_99(content: Content) -> int:
    i, entry = entry_of(content)
    entry['category_id'] = 99
    return i


def compressed(width: int, height: int, *, cut: int = 0) -> dict[str, Any]:
    full = coco_mask.frPyObjects([[2, 2, 30, 2, 30, 30]], height, width)[0]
    return {'size': [height, width], 'counts': full['counts'].decode()[: -cut or None]}


@pytest.mark.parametrize(
    ('change', 'kind', 'what'),
    [
        (with_bad_box([-20, 0, 30, 30]), 'box outside the image', '-20, 0 to 10, 30 in an image of SIZE'),
        (with_bad_box([5, 900, 30, 30]), 'box outside the image', '5, 900 to 35, 930 in an image of SIZE'),
        (with_bad_box([5, 5, 0, 30]), 'empty box', '5, 5 to 5, 35: 0 wide, 30 high'),
        (with_bad_box([30, 5, -10, 30]), 'empty box', '30, 5 to 20, 35: -10 wide, 30 high'),
        (with_bad_box([float('nan'), 5, 10, 30]), 'empty box', 'nan, 5 to nan, 35: nan wide, 30 high'),
        (with_bad_box([5, 5, 0.5, 30]), 'tiny box', '5, 5 to 5.5, 35: 0.5 wide, 30 high'),
        (with_bad_box([5, 5, 30]), 'broken annotation', 'not enough values to unpack (expected 4, got 3)'),
        (with_bad_mask([[1, 1, 9, 9]]), 'broken polygon', '4 values'),
        (with_bad_mask([[1, 1, 9, 9, 1, 9, 5]]), 'broken polygon', '7 values'),
        (with_bad_mask([[1, 1, 9, 'x', 1, 9]]), 'broken polygon', '6 values'),
        (with_bad_mask('text'), 'broken polygon', 'text'),
        (with_bad_mask([[1, 1, 9, -9, 1, 9]]), 'polygon outside the image', '1, -9 to 9, 9 in an image of SIZE'),
        (with_bad_mask({'size': [4, 4], 'counts': [3, 13]}), 'wrong run-length size', '4x4, the image SIZE'),
        (with_bad_mask(compressed(40, 50)), 'wrong run-length size', '40x50, the image SIZE'),
        (without('bbox'), 'broken annotation', "no 'bbox'"),
        (without('area'), 'broken annotation', "no 'area'"),
        (without('category_id'), 'broken annotation', "no 'category_id'"),
        (with_category_99, 'label without class', 'category_id 99'),
    ],
)
def test_broken_annotation(
    shapes: Path, content: Content, change: Callable[[Content], int], kind: str, what: str
) -> None:
    i = change(content)
    image = next(image for image in content['images'] if image['id'] == content['annotations'][i]['image_id'])
    write(shapes, content)
    [report] = run(coco_config(shapes), 'train')
    findings = found(report)
    findings.pop('image without annotations')
    what = what.replace('SIZE', f'{image["width"]}x{image["height"]}')
    assert findings == {kind: [(f'{image["file_name"]} annotations[{i}]', what)]}
    assert kind in {**ERRORS, **NOTES}


def test_run_lengths_that_do_not_fill_their_size(shapes: Path, content: Content) -> None:
    i, entry = entry_of(content, polygon=False)
    height, width = entry['segmentation']['size']
    entry['segmentation']['counts'][-1] += 7
    j, other = entry_of(content)
    image = next(image for image in content['images'] if image['id'] == other['image_id'])
    other['segmentation'] = compressed(image['width'], image['height'], cut=2)
    write(shapes, content)
    [report] = run(coco_config(shapes), 'train')
    messages = {where.split()[-1]: what for where, what in found(report)['broken run lengths']}
    size = width * height
    assert messages[f'annotations[{i}]'] == f'runs of {size + 7:,} pixels in all for {width}x{height} = {size:,}'
    assert messages[f'annotations[{j}]']
    assert report.count(ERRORS) == 2


def test_rounding_is_no_fault(shapes: Path, content: Content) -> None:
    _, entry = entry_of(content)
    image = next(image for image in content['images'] if image['id'] == entry['image_id'])
    entry['bbox'] = [-0.6, -0.4, image['width'] + 1.2, image['height'] + 1.0]
    write(shapes, content)
    assert run(coco_config(shapes), 'train')[0].count(ERRORS) == 0


def test_identities(shapes: Path, content: Content) -> None:
    first = content['images'][0]
    content['images'].append(dict(first))
    content['annotations'] += [dict(content['annotations'][0]), dict(content['annotations'][1], id=9999, image_id=777)]
    n = len(content['annotations'])
    write(shapes, content)
    [report] = run(coco_config(shapes), 'train')
    findings = found(report)
    text = f'{first["id"]} ({shapes}/train2017/{first["file_name"]})'
    assert findings['duplicate image id'] == [('images[60]', text)]
    assert findings['duplicate annotation id'] == [(f'annotations[{n - 2}]', str(content['annotations'][0]['id']))]
    assert findings['annotation without image'] == [(f'annotations[{n - 1}]', 'image_id 777')]
    assert findings['image listed twice'] == [(first['file_name'], '')]
    assert report.count(ERRORS) == 3


def test_broken_entries_do_not_hide_the_rest(shapes: Path, content: Content) -> None:
    content['images'] += [{'id': 5000}, 7, {'id': 1, 'file_name': 3, 'width': 4, 'height': 4}]
    content['annotations'] += [7, {'id': []}, {'id': 1_000_000, 'image_id': {}}]
    write(shapes, content)
    [report] = run(coco_config(shapes), 'train')
    broken = [where for where, _ in found(report)['broken annotation']]
    assert broken == [f'images[{i}]' for i in (60, 61, 62)] + [
        f'annotations[{len(content["annotations"]) - k}]' for k in (3, 2, 1)
    ]
    assert report.images == 60


def test_image_files(shapes: Path, content: Content) -> None:
    folder = shapes / 'train2017'
    names = [image['file_name'] for image in content['images']]
    (folder / names[0]).unlink()
    data = (folder / names[1]).read_bytes()
    (folder / names[1]).write_bytes(data[: len(data) // 2])
    (folder / names[2]).write_text('<html>not found</html>')
    (folder / names[3]).write_bytes(b'')
    size = content['images'][4]['width'], content['images'][4]['height']
    Image.new('RGB', (size[0] + 8, size[1])).save(folder / names[4])
    for name, mode in zip(names[5:8], ('L', 'CMYK', 'RGBA'), strict=True):
        with Image.open(folder / name) as image:
            image.convert(mode).save(folder / name, format='PNG' if mode == 'RGBA' else 'JPEG')
    shutil.copy(folder / names[9], folder / names[10])
    content['images'][10].update(width=content['images'][9]['width'], height=content['images'][9]['height'])
    write(shapes, content)
    [report] = run(coco_config(shapes), 'train')
    findings = found(report)
    assert findings['missing image'] == [(names[0], '')]
    assert [name for name, _ in findings['unreadable image']] == names[1:4]
    assert 'truncated' in findings['unreadable image'][0][1]
    assert findings['unreadable image'][1][1] == 'none of the known image formats (22 bytes)'
    assert findings['unreadable image'][2][1] == 'an empty file'
    assert findings['wrong image size'] == [
        (names[4], f'{size[0] + 8}x{size[1]} pixels, but annotated as {size[0]}x{size[1]}')
    ]
    assert findings['grey image'] == [(names[5], '')]
    assert findings['CMYK image'] == [(names[6], '')]
    assert findings['image with alpha'] == [(names[7], '')]
    assert findings['same content twice'] == [(names[9], f'equal to {folder / names[10]}')]


@pytest.mark.parametrize('annotated_as_turned', [False, True])
def test_turned_images(shapes: Path, content: Content, annotated_as_turned: bool) -> None:
    """mmcv turns an image by its EXIF tag; annotations made for the file as stored then lie elsewhere."""
    entry = content['images'][0]
    size = (80, 40) if annotated_as_turned else (40, 80)
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new('RGB', (40, 80)).save(shapes / 'train2017' / entry['file_name'], exif=tag)
    entry.update(width=size[0], height=size[1])
    content['annotations'] = [e for e in content['annotations'] if e['image_id'] != entry['id']]
    write(shapes, content)
    [report] = run(coco_config(shapes), 'train')
    if annotated_as_turned:
        assert found(report)['EXIF orientation'] == [(entry['file_name'], '6')]
        assert report.count(ERRORS) == 0
    else:
        text = '80x40 pixels, turned by EXIF orientation 6, but annotated as 40x80'
        assert found(report)['wrong image size'] == [(entry['file_name'], text)]


def test_classes(shapes: Path, content: Content) -> None:
    numbers = {entry['category_id'] for entry in content['annotations']}
    content['categories'].append({'id': 50, 'name': 'sphere'})
    content['annotations'] = [e for e in content['annotations'] if e['category_id'] != 1]
    content['annotations'][0]['category_id'] = 50
    write(shapes, content)
    [report] = run(coco_config(shapes), 'train')
    assert numbers == {1, 2, 3, 4, 5, 6}
    assert report.empty_classes == ['disc']
    assert found(report)['empty class'] == [('disc', '')]
    assert found(report)['unknown class'] == [('sphere', '1 objects')]
    assert (report.unknown, report.count(ERRORS)) == ({'sphere': 1}, 0)
    [other] = run(coco_config(shapes, metainfo=dict(classes=('disc', 'cube'))), 'train')
    assert 'no category for 1 of the 2 classes in the config: cube' in found(other)['classes do not fit'][0][1]
    [other] = run(coco_config(shapes, metainfo=dict(classes=('square', 'disc'))), 'train')
    assert 'another order' in found(other)['classes do not fit'][0][1]
    cfg = coco_config(shapes)
    cfg.model = dict(bbox_head=dict(num_classes=80))
    assert 'model.bbox_head.num_classes=6' in found(run(cfg, 'train')[0])['classes do not fit'][0][1]


@pytest.mark.parametrize('text', ['{"images": [', '[1, 2]', '{}', '{"images": 3, "categories": []}', ''])
def test_broken_annotation_file(shapes: Path, text: str) -> None:
    (shapes / 'annotations/instances_train2017.json').write_text(text)
    train, val = run(coco_config(shapes))
    [finding] = train.findings
    assert finding.kind == 'broken annotation file'
    assert finding.where == str(shapes / 'annotations/instances_train2017.json')
    assert 'not a COCO annotation file' in finding.what
    assert (val.images, val.count(ERRORS)) == (14, 0)


def test_empty_split(shapes: Path, content: Content) -> None:
    content['annotations'] = []
    write(shapes, content)
    assert found(run(coco_config(shapes), 'train')[0])['empty split'][0][1] == '60 images, 0 annotations'


def test_leaks(shapes: Path, content: Content) -> None:
    val = json.loads((shapes / 'annotations/instances_val2017.json').read_text())
    name, other = (content['images'][i]['file_name'] for i in (0, 1))
    copied = val['images'][1]['file_name']
    val['images'][0] |= {**content['images'][0], 'id': val['images'][0]['id'], 'file_name': f'../train2017/{name}'}
    val['images'][1].update(width=content['images'][1]['width'], height=content['images'][1]['height'])
    val['annotations'] = [e for e in val['annotations'] if e['image_id'] != val['images'][1]['id']]
    shutil.copy(shapes / 'train2017' / other, shapes / 'val2017' / copied)
    (shapes / 'annotations/instances_val2017.json').write_text(json.dumps(val))
    train, report = run(coco_config(shapes))
    assert train.count(ERRORS) == 0
    assert found(report)['same image in training and evaluation'] == [(name, '')]
    assert found(report)['same content in training and evaluation'] == [
        (copied, f'equal to {shapes / "train2017" / other}')
    ]


def test_one_set_for_both(root: Path) -> None:
    cfg = coco_config(root)
    cfg.val_dataloader.dataset = copy.deepcopy(cfg.train_dataloader.dataset)
    cfg.val_dataloader.dataset.update(test_mode=True, pipeline=[])
    train, test = run(cfg)
    assert (train.part, test.part) == ('train, val', 'test')
    assert [finding.what for finding in train.kinds()['same image in training and evaluation']] == ['train, val']
    cfg = coco_config(root)
    both = [cfg.train_dataloader.dataset, copy.deepcopy(cfg.train_dataloader.dataset)]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    [twice] = run(cfg, 'train')
    assert (twice.part, twice.count(ERRORS)) == ('train[0], train[1]', 0)


# VOC


def voc_config(root: Path) -> Config:
    dataset = dict(
        type='VOCDataset',
        data_root=str(root),
        ann_file='VOC2007/ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        metainfo=dict(classes=CLASSES),
    )
    return Config(dict(default_scope='mmdet', model={}, train_dataloader=dict(dataset=dataset)))


@pytest.fixture
def voc(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root / 'VOCdevkit/VOC2007', tmp_path / 'VOC2007')
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_sound_voc(voc: Path, scenes: dict) -> None:
    [report] = run(voc_config(voc))
    names = (voc / 'VOC2007/ImageSets/Main/train.txt').read_text().split()
    instances = [instance for name in names for instance in scenes[name].instances]
    assert (report.images, report.annotations, report.count(ERRORS)) == (48, len(instances), 0)
    assert report.difficult >= sum(instance.crowd for instance in instances) > 0


def test_broken_voc(voc: Path) -> None:
    folder, lists = voc / 'VOC2007/Annotations', voc / 'VOC2007/ImageSets/Main/train.txt'
    names = [name for name in lists.read_text().split() if '<object>' in (folder / f'{name}.xml').read_text()]
    files = [folder / f'{name}.xml' for name in names]
    files[0].unlink()
    files[1].write_text('<annotation>')
    edit(files[2], '<xmin>', '<left>'), edit(files[2], '</xmin>', '</left>')
    edit(files[3], '<name>', '<name>un')
    edit(files[4], '<xmax>', '<xmax>9')
    edit(files[5], '<xmin>', '<xmin>many')
    edit(files[6], '<width>', '<width>1')
    lists.write_text(lists.read_text() + f'\n{names[7]}\n')
    [report] = run(voc_config(voc))
    findings = found(report)
    assert findings['missing annotation file'] == [(f'{names[0]}.xml', '')]
    assert [where for where, _ in findings['broken annotation']] == [
        'train.txt',
        f'{names[1]}.xml',
        f'{names[2]}.xml object 1',
        f'{names[5]}.xml object 1',
    ]
    assert findings['broken annotation'][0][1] == 'an empty line'
    assert findings['broken annotation'][2][1] == 'no bndbox with xmin, ymin, xmax, ymax'
    assert findings['duplicate image id'] == [('train.txt', names[7])]
    assert findings['image listed twice'] == [(f'{names[7]}.jpg', '')]
    node = ElementTree.parse(files[4]).find('object/bndbox')
    x1, y1, x2, y2 = (int(node.findtext(side)) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
    [(where, what)] = findings['box outside the image']
    assert where == f'{names[4]}.xml object 1'
    assert what.startswith(f'{x1 - 1}, {y1 - 1} to {x2}, {y2} in an image of ')  # from 1 to 0, last pixel included
    assert [where for where, _ in findings['wrong image size']] == [f'{names[6]}.jpg']
    assert [name[:2] for name in report.unknown] == ['un']
    assert report.count(ERRORS) == 8


def test_another_vocabulary(voc: Path) -> None:
    cfg = voc_config(voc)
    cfg.train_dataloader.dataset.metainfo = dict(classes=('cat', 'dog'))
    [report] = run(cfg)
    assert 'no category for 2 of the 2 classes in the config: cat, dog' in found(report)['classes do not fit'][0][1]


def test_misuse(root: Path) -> None:
    with pytest.raises(ValueError, match='workers=0'):
        audit([], workers=0)
    with pytest.raises(UserError, match=r"'CocoDataset' cannot be built.*colour"):
        read_splits(coco_config(root, colour='red'), ('train',))


# Real data


def real(name: str, config: str) -> list[Report]:
    from mmres2net.data.layout import point_at
    from mmres2net.engine.config import load_config

    return run(point_at(load_config(config), data_root(name)))


@pytest.mark.realdata
def test_coco_mini() -> None:
    train, val = real('coco_mini', 'faster_rcnn_r2n50.py')
    assert (train.images, train.annotations, train.crowd, train.count(ERRORS)) == (128, 939, 10, 0)
    assert (val.images, val.annotations, val.crowd, val.count(ERRORS)) == (80, 815, 11, 0)
    assert (len(train.empty_classes), len(val.empty_classes)) == (9, 0)
    assert train.counts['person'] == 259
    assert found(train)['grey image'] == [('000000000086.jpg', '')]


@pytest.mark.realdata
def test_voc07_mini() -> None:
    train, test = real('voc07_mini', 'faster_rcnn_r2n50_voc07.py')
    assert (train.images, train.annotations, train.difficult, train.findings) == (182, 440, 20, [])
    assert (test.images, test.annotations, test.difficult, test.findings) == (200, 459, 18, [])

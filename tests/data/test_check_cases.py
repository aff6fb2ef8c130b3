"""Tables of data as people have them: the check in front of a run and ``check-data`` find the same errors in each."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmres2net.data.check import check_before_training
from mmres2net.data.check.report import ERRORS, NOTES
from mmres2net.errors import UserError
from tests.data.tiny_sets import HEIGHT, OBJECT, WIDTH, TinySet, coco_set, draw, folder_set, mask_set, turned, voc_set
from tests.support.cli import run_cli

Change = Callable[[TinySet], None]
PARTS = ('train', 'val', 'test')


def found_before(path: Path) -> tuple[set[str], set[str]]:
    """Return the kinds of errors and of notes of the check in front of a run."""
    try:
        reports = check_before_training(Config.fromfile(path), PARTS, workers=1)
    except UserError as error:
        return set(re.findall(r'error: [\d,]+ x ([^(]+) \(', str(error))), set()
    findings = {kind for report in reports for kind in report.kinds()}
    return findings & set(ERRORS), findings & set(NOTES)


def found_by_command(path: Path) -> tuple[int, set[str], set[str]]:
    """Return the exit status of ``check-data``, the kinds of errors and the kinds of notes."""
    flags = ('--samples', '0', '--json', path.parent / 'report.json', '--workers', '1')
    result = run_cli('check-data', path, *flags)
    splits = json.loads((path.parent / 'report.json').read_text())['splits'] if result.status < 2 else []
    errors, notes = ({kind for split in splits for kind in split[key]} for key in ('errors', 'notes'))
    return result.status, errors, notes


def agree(made: TinySet, errors: set[str], notes: set[str]) -> None:
    """Assert that both checks find exactly ``errors``, and the command at least ``notes``."""
    path = made.write()
    before, _ = found_before(path)
    status, after, noted = found_by_command(path)
    assert before == after == errors
    assert status == int(bool(errors))
    assert notes <= noted


def case(errors: str = '', notes: str = '', **others: Any) -> Any:
    """Return what a case expects: kinds, separated by commas."""
    return tuple({kind for kind in text.split(', ') if kind} for text in (errors, notes))


def annotations(key: str, value: Any, *, part: str = 'train', count: int | None = 1) -> Change:
    """Set a key of the first ``count`` annotations; ``...`` removes it."""

    def change(made: TinySet) -> None:
        for entry in made.content[part]['annotations'][:count]:
            entry[key] = value
            if value is ...:
                del entry[key]

    return change


def images(key: str, value: Any) -> Change:
    def change(made: TinySet) -> None:
        made.content['train']['images'][0][key] = value
        if value is ...:
            del made.content['train']['images'][0][key]

    return change


def every(change: Callable[[TinySet], Any]) -> Change:
    return lambda made: change(made) and None


def renumber(made: TinySet, image: Callable[[int], Any], annotation: Callable[[int], Any]) -> None:
    for content in made.content.values():
        for entry in content['images']:
            entry['id'] = image(entry['id'])
        for entry in content['annotations']:
            entry['image_id'], entry['id'] = image(entry['image_id']), annotation(entry['id'])


def categories(made: TinySet, *entries: dict[str, Any]) -> None:
    for content in made.content.values():
        content['categories'] = [*entries, *content['categories']]


def text_file(name: str, text: str | bytes) -> Change:
    def change(made: TinySet) -> None:
        made.content = {}
        coco = coco_set(made.root)
        coco.write()
        (made.root / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return change


def damage(path: Path) -> None:
    """Flip bytes in the middle of a file, of which the end stays sound."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(byte ^ 0xFF for byte in data[middle : middle + 40])
    path.write_bytes(data)


def first_image(make: Callable[[Path], Any], name: str = '0.jpg') -> Change:
    """Replace the first training image by what ``make`` writes to the path."""

    def change(made: TinySet) -> None:
        (made.root / 'train/0.jpg').unlink()
        made.content['train']['images'][0]['file_name'] = name
        make(made.root / 'train' / name)

    return change


def broken_png(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    damage(path)


def cut_jpeg(path: Path) -> None:
    draw(path, 5)
    path.write_bytes(path.read_bytes()[:-200])


def classes_file(made: TinySet, names: str = 'car\ndog\n') -> None:
    (made.root / 'classes.txt').write_text(names)
    for part in PARTS:
        made.dataset(part).metainfo = dict(classes=str(made.root / 'classes.txt'))


def other_evaluator(made: TinySet) -> None:
    (made.root / 'other.json').write_text(json.dumps(made.content['val']))
    made.cfg.val_evaluator.ann_file = str(made.root / 'other.json')


def challenge(made: TinySet) -> None:
    """The test split of a challenge: no annotations, detections are written."""
    made.content['test'] = {key: made.content['val'][key] for key in ('images', 'categories')}
    made.cfg.test_dataloader.dataset.ann_file = 'test.json'
    made.cfg.test_evaluator.update(
        ann_file=str(made.root / 'test.json'), format_only=True, outfile_prefix=str(made.root / 'out')
    )


def evaluate_training_data(made: TinySet) -> None:
    for part in ('val', 'test'):
        made.dataset(part).update(ann_file='train.json', data_prefix=dict(img='train/'))
        made.cfg[f'{part}_evaluator'].ann_file = str(made.root / 'train.json')


RUNS = {'size': [64, 96], 'counts': [10, 50, 64 * 96 - 60]}
COCO: dict[str, tuple[Change, Any]] = {
    'sound': (every(lambda made: None), case()),
    'annotation ids from 0': (every(lambda made: renumber(made, int, lambda i: i - 1)), case()),
    'negative ids': (every(lambda made: renumber(made, lambda i: -i, lambda i: -i)), case()),
    'ids as texts': (every(lambda made: renumber(made, lambda i: f'img-{i}', str)), case()),
    'ids as floats': (every(lambda made: renumber(made, float, float)), case()),
    'annotation ids that restart': (
        every(lambda made: renumber(made, int, lambda i: i % 2)), case('duplicate annotation id')
    ),
    'two images of one id': (images('id', 2), case('duplicate image id, annotation without image')),
    'no iscrowd': (annotations('iscrowd', ..., count=None), case()),
    'iscrowd as text': (annotations('iscrowd', '0', count=None), case('broken annotation, empty split')),
    'iscrowd as bool': (annotations('iscrowd', False), case()),
    'all crowd': (annotations('iscrowd', 1, count=None), case('empty split')),
    'no area': (annotations('area', ...), case('broken annotation')),
    'area 0': (annotations('area', 0), case('', 'annotation left out')),
    'area 0 in all': (annotations('area', 0, count=None), case('empty split', 'annotation left out')),
    'area as text': (annotations('area', '600'), case('broken annotation')),
    'no bbox': (annotations('bbox', ...), case('broken annotation')),
    'bbox of texts': (annotations('bbox', ['1', '2', '3', '4']), case('broken annotation')),
    'bbox as text': (annotations('bbox', '[1, 2, 30, 40]'), case('broken annotation')),
    'bbox of three': (annotations('bbox', [1, 2, 3]), case('broken annotation')),
    'bbox null': (annotations('bbox', None), case('broken annotation')),
    'bbox with NaN': (annotations('bbox', [float('nan'), 1, 5, 5]), case('box that is not finite')),
    'bbox with Infinity': (annotations('bbox', [1, 1, float('inf'), 5]), case('box that is not finite')),
    'bbox with a huge number': (annotations('bbox', [1, 1, 10**400, 5]), case('broken annotation')),
    'box without width': (annotations('bbox', [5, 5, 0, 9]), case('', 'annotation left out')),
    'box of negative width': (annotations('bbox', [30, 5, -9, 9]), case('', 'annotation left out')),
    'box of half a pixel': (annotations('bbox', [5, 5, 0.5, 9]), case('', 'annotation left out')),
    'box outside': (annotations('bbox', [310, 5, 9, 9]), case('', 'annotation left out')),
    'box partly outside': (annotations('bbox', [80, 5, 30, 9]), case('', 'box beyond the image')),
    'box that is rounded up': (annotations('bbox', [66, 5, 30.9, 9]), case()),
    'no segmentation, boxes only': (annotations('segmentation', []), case()),
    'unknown category': (annotations('category_id', 99), case('label without class')),
    'category as text': (annotations('category_id', '1'), case('label without class')),
    'unknown image': (annotations('image_id', 777), case('annotation without image')),
    'annotation without id': (annotations('id', ...), case('broken annotation')),
    'image without id': (images('id', ...), case('broken annotation, annotation without image')),
    'image without size': (images('width', ...), case('broken annotation, annotation without image')),
    'image size as text': (images('width', '96'), case('broken annotation, annotation without image')),
    'image size of 0': (images('width', 0), case('wrong image size', 'annotation left out')),
    'another image size': (images('width', 90), case('wrong image size')),
    'backslash in a name': (images('file_name', '..\\train\\0.jpg'), case('missing image')),
    'file name with folders': (images('file_name', '../train/0.jpg'), case()),
    'super-category': (every(lambda made: categories(made, {'id': 0, 'name': 'things'})), case()),
    'super-category of the same name': (
        every(lambda made: categories(made, {'id': 0, 'name': 'car'})), case('classes do not fit')
    ),
    'two categories of one id': (
        every(lambda made: categories(made, {'id': 1, 'name': 'x'})), case('classes do not fit')
    ),
    'a class of the config alone': (
        every(lambda made: made.dataset().metainfo.update(classes=('car', 'cow'))), case('classes do not fit')
    ),
    'another order of classes': (
        every(lambda made: made.dataset().metainfo.update(classes=('dog', 'car'))), case('classes do not fit')
    ),
    'some of the classes': (
        every(lambda made: [
            *(made.dataset(part).metainfo.update(classes=('dog',)) for part in PARTS),
            made.cfg.model.roi_head.bbox_head.update(num_classes=1),
        ]),
        case('', 'unknown class'),
    ),
    'a class without an object': (annotations('category_id', 2, count=None), case('', 'class without an object')),
    'classes in a file': (classes_file, case()),
    'classes in a file, another head': (
        every(lambda made: [classes_file(made), made.cfg.model.roi_head.bbox_head.update(num_classes=1)]),
        case('config does not fit'),
    ),
    'evaluator of another file': (other_evaluator, case('config does not fit')),
    'challenge': (challenge, case()),
    'validation without objects': (
        every(lambda made: made.content['val']['annotations'].clear()),
        case('empty split', 'image without annotations'),
    ),
    'no annotations': (every(lambda made: made.content['train'].pop('annotations')), case('empty split')),
    'no images': (
        every(lambda made: made.content['train'].update(images=[])), case('annotation without image, empty split')
    ),
    'filtered to nothing': (
        every(lambda made: made.dataset().update(filter_cfg=dict(min_size=200))), case('empty split')
    ),
    'evaluation on training data': (evaluate_training_data, case('', 'same set in training and evaluation')),
    'an image of training in validation': (
        every(lambda made: made.content['val']['images'][0].update(file_name='../train/0.jpg')),
        case('same image in training and evaluation'),
    ),
    'JSON cut': (text_file('train.json', '{"images": ['), case('broken annotation file')),
    'JSON of a list': (text_file('train.json', '[1]'), case('broken annotation file')),
    'JSON nested': (text_file('train.json', '[' * 200_000), case('broken annotation file')),
    'JSON of a huge number': (text_file('train.json', '[' + '9' * 5000 + ']'), case('broken annotation file')),
    'JSON empty': (text_file('train.json', ''), case('broken annotation file')),
    'JSON with a byte order mark': (
        text_file('train.json', b'\xef\xbb\xbf{"images": [], "categories": []}'), case('broken annotation file')
    ),
    'JSON in UTF-16': (
        text_file('train.json', '{"images": [], "categories": []}'.encode('utf-16')), case('broken annotation file')
    ),
    'JSON in another encoding': (text_file('train.json', b'\xff\xfe\x00'), case('broken annotation file')),
    'damaged PNG': (first_image(broken_png, '0.png'), case('unreadable image')),
    'cut JPEG': (first_image(cut_jpeg), case('unreadable image')),
    'empty image': (first_image(lambda path: path.touch()), case('unreadable image')),
    'web page as image': (first_image(lambda path: path.write_text('<html>')), case('unreadable image')),
    'folder as image': (first_image(lambda path: path.mkdir()), case('unreadable image')),
    'pipe as image': (first_image(lambda path: os.mkfifo(path)), case('unreadable image')),
    'missing image': (first_image(lambda path: None), case('missing image')),
    'image that OpenCV cannot read': (first_image(lambda path: draw(path, 1), '0.tga'), case('unreadable image')),
    'WebP': (first_image(lambda path: draw(path, 1), '0.webp'), case()),
    'turned image, annotated as stored': (
        first_image(lambda path: turned(path, 1, (96, 64))), case('wrong image size')
    ),
    'turned image that is loaded as stored': (
        every(lambda made: [
            first_image(lambda path: turned(path, 1, (96, 64)))(made),
            made.dataset().pipeline[0].update(color_type='color_ignore_orientation'),
        ]),
        case(),
    ),
    'turned image, annotated as seen': (
        first_image(lambda path: turned(path, 1, (64, 96))), case('', 'EXIF orientation')
    ),
}  # fmt: skip
BROKEN_MASK = case('broken mask of an object')
MASKS: dict[str, tuple[Change, Any]] = {
    'sound': (every(lambda made: None), case()),
    'run lengths': (annotations('segmentation', RUNS), case()),
    'no segmentation': (annotations('segmentation', []), case('object without mask')),
    'null segmentation': (annotations('segmentation', None), case('object without mask')),
    'segmentation absent': (annotations('segmentation', ...), case('object without mask')),
    'absent in validation': (annotations('segmentation', [], part='val'), case('object without mask')),
    'absent, but left out': (
        every(lambda made: made.content['train']['annotations'][0].update(segmentation=[], bbox=[5, 5, 0, 5])), case()
    ),
    'two points': (annotations('segmentation', [[1, 1, 9, 9]]), case('', 'polygon left out')),
    'two points in validation': (annotations('segmentation', [[1, 1, 9, 9]], part='val'), case('object without mask')),
    'odd numbers': (annotations('segmentation', [[1, 1, 9, 1, 9, 9, 5]]), case('', 'polygon left out')),
    'polygon of texts': (annotations('segmentation', [['1', '2'] * 3]), BROKEN_MASK),
    'polygon with NaN': (annotations('segmentation', [[float('nan')] * 6]), BROKEN_MASK),
    'text': (annotations('segmentation', 'PPY'), BROKEN_MASK),
    'polygon outside': (annotations('segmentation', [[1, 1, 990, 1, 9, 9]]), case('', 'polygon beyond the image')),
    'runs of another size': (annotations('segmentation', {'size': [4, 4], 'counts': [16]}), BROKEN_MASK),
    'runs that are too short': (annotations('segmentation', {'size': [64, 96], 'counts': [16]}), BROKEN_MASK),
    'runs of a huge size': (
        annotations('segmentation', {'size': [2**30, 2**30], 'counts': [2**60]}), BROKEN_MASK
    ),
    'compressed text cut short': (annotations('segmentation', {'size': [64, 96], 'counts': 'bo'}), BROKEN_MASK),
    'no counts': (annotations('segmentation', {'size': [64, 96]}), BROKEN_MASK),
    'heads of another size': (
        every(lambda made: made.cfg.model.roi_head.mask_head.update(num_classes=80)), case('config does not fit')
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', COCO)
def test_coco(name: str, tmp_path: Path) -> None:
    made = coco_set(tmp_path)
    change, expected = COCO[name]
    change(made)
    agree(made, *expected)


@pytest.mark.parametrize('name', MASKS)
def test_coco_with_masks(name: str, tmp_path: Path) -> None:
    made = coco_set(tmp_path, masks=True)
    change, expected = MASKS[name]
    change(made)
    agree(made, *expected)


# VOC


def xml(old: str, new: str, *, name: str = 'train0') -> Change:
    """Replace a text in an annotation file, once."""

    def change(made: TinySet) -> None:
        path = made.root / f'Annotations/{name}.xml'
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def voc_object(*box: float, label: str = 'car', difficult: int = 0, part: str = 'train') -> Change:
    """Put an object into the first annotation file of a part."""
    node = OBJECT.format(label, *box).replace('<difficult>0', f'<difficult>{difficult}')
    return xml('</annotation>', f'{node}</annotation>', name=f'{part}0')


def voc_name(new: str, suffix: str = '.jpg') -> Change:
    def change(made: TinySet) -> None:
        (made.root / 'JPEGImages/train0.jpg').rename(made.root / f'JPEGImages/{new}{suffix}')
        (made.root / 'Annotations/train0.xml').rename(made.root / f'Annotations/{new}.xml')
        lines = (made.root / 'train.txt').read_text().replace('train0\n', f'{new}\n')
        (made.root / 'train.txt').write_text(lines)

    return change


def voc_bytes(name: str, data: Callable[[bytes], bytes]) -> Change:
    return every(lambda made: (made.root / name).write_bytes(data((made.root / name).read_bytes())))


def encoded(name: str) -> Callable[[bytes], bytes]:
    return lambda data: f'<?xml version="1.0" encoding="{name}"?>'.encode() + data


BOMB = b'<!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaa">%s]><annotation>&a9;</annotation>' % b''.join(
    b'<!ENTITY a%d "%s">' % (i, b'&a%d;' % (i - 1) * 10) for i in range(1, 10)
)
VOC: dict[str, tuple[Change, Any]] = {
    'sound': (every(lambda made: None), case()),
    'name with spaces': (voc_name('my photo'), case()),
    'name with umlauts': (voc_name('Straße ä'), case()),
    'PNG': (voc_name('x', '.png'), case('missing image')),
    'suffix in capitals': (voc_name('x', '.JPG'), case('missing image')),
    'box outside': (voc_object(310, 5, 320, 20), case('empty box')),
    'box outside in validation': (voc_object(310, 5, 320, 20, part='val'), case('', 'annotation left out')),
    'box partly outside': (voc_object(80, 5, 120, 20), case('', 'box beyond the image')),
    'box without width': (voc_object(20, 5, 20, 30), case('empty box')),
    'box within a pixel': (voc_object(20.2, 5, 20.9, 30), case('empty box')),
    'box reversed': (voc_object(40, 30, 10, 5), case('empty box')),
    'box reversed, of another class': (voc_object(40, 30, 10, 5, label='tree'), case('', 'unknown class')),
    'box without width, difficult': (voc_object(20, 5, 20, 30, difficult=1), case('', 'annotation left out')),
    'box without width, difficult and trained on': (
        every(lambda made: [
            voc_object(20, 5, 20, 30, difficult=1)(made),
            made.dataset().update(pipeline=[dict(type='mmres2net.TrainOnDifficult')]),
        ]),
        case('empty box'),
    ),
    'box without width, too small for training': (
        every(lambda made: [voc_object(20, 5, 20, 30)(made), made.dataset().filter_cfg.update(bbox_min_size=4)]),
        case('', 'annotation left out'),
    ),
    'box of floats': (voc_object(10.5, 5.25, 40.75, 20.0), case()),
    'box of texts': (voc_object('ten', 5, 40, 20), case('broken annotation')),  # type: ignore[arg-type]
    'box of nan': (voc_object(float('nan'), 5, 40, 20), case('broken annotation')),
    'box of inf': (voc_object(1, 5, float('inf'), 20), case('broken annotation')),
    'no xmin': (xml('<xmin>10</xmin>', ''), case('broken annotation')),
    'no name': (xml('<name>car</name>', ''), case('broken annotation')),
    'no difficult': (xml('<difficult>0</difficult>', ''), case()),
    'difficult empty': (xml('<difficult>0</difficult>', '<difficult/>'), case('broken annotation')),
    'difficult as text': (xml('<difficult>0', '<difficult>Unspecified'), case('broken annotation')),
    'no size': (xml('<size><width>96</width><height>64</height></size>', ''), case()),
    'size of 0': (xml('<width>96</width><height>64<', '<width>0</width><height>0<'), case('wrong image size')),
    'size of floats': (xml('<width>96<', '<width>96.0<'), case('broken annotation')),
    'another size': (xml('<width>96<', '<width>95<'), case('wrong image size')),
    'name in capitals': (xml('<name>car<', '<name>Car<'), case('misspelled class')),
    'name in blanks': (xml('<name>car<', '<name> car <'), case('misspelled class')),
    'another name': (xml('<name>car<', '<name>tree<'), case('', 'unknown class')),
    'another vocabulary': (
        every(lambda made: [made.dataset(part).update(metainfo=dict(classes=('cat', 'cow'))) for part in PARTS]),
        case('classes do not fit, empty split'),
    ),
    'empty line': (voc_bytes('train.txt', lambda data: data + b'\n'), case('broken annotation')),
    'no line': (voc_bytes('train.txt', lambda data: b''), case('empty split')),
    'name twice': (
        voc_bytes('train.txt', lambda data: data + b'train0\n'),
        case('duplicate image id', 'image listed twice'),
    ),
    'Windows lines': (voc_bytes('train.txt', lambda data: data.replace(b'\n', b'\r\n')), case()),
    'list in latin-1': (
        voc_bytes('train.txt', lambda data: data + 'Straße\n'.encode('latin-1')),
        case('broken annotation file'),
    ),
    'list with a byte order mark': (
        voc_bytes('train.txt', lambda data: b'\xef\xbb\xbf' + data),
        case('broken annotation file'),
    ),
    'XML in GBK': (
        voc_bytes('Annotations/train0.xml', encoded('GBK')),
        case('broken annotation'),
    ),
    'XML in latin-1': (
        voc_bytes('Annotations/train0.xml', encoded('ISO-8859-1')),
        case(),
    ),
    'XML in an unknown encoding': (
        voc_bytes('Annotations/train0.xml', encoded('klingon')),
        case('broken annotation'),
    ),
    'XML cut': (voc_bytes('Annotations/train0.xml', lambda data: data[:50]), case('broken annotation')),
    'XML bomb': (voc_bytes('Annotations/train0.xml', lambda data: BOMB), case('broken annotation')),
    'XML of 40 MB': (
        voc_bytes('Annotations/train0.xml', lambda data: data + b' ' * (40 * 2**20)),
        case('broken annotation'),
    ),
    'XML absent': (
        every(lambda made: (made.root / 'Annotations/train0.xml').unlink()),
        case('missing annotation file'),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', VOC)
def test_voc(name: str, tmp_path: Path) -> None:
    made = voc_set(tmp_path)
    change, expected = VOC[name]
    change(made)
    agree(made, *expected)


# Semantic masks


def colors(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask * 255).convert('RGB')


def palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask).convert('P')
    image.putpalette([0, 0, 0, 200, 30, 30] + [0] * 762)
    return image


def set_value(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(mask: np.ndarray) -> np.ndarray:
        mask[0, :3] = value
        return mask

    return change


def seg(change: Change) -> tuple[Callable[[np.ndarray], Any], Change]:
    return (lambda mask: mask), change


def nothing(made: TinySet) -> None:
    """Change nothing but the masks."""


def one_class(made: TinySet) -> None:
    for part in PARTS:
        made.dataset(part).metainfo = dict(classes=('road',))
    for head in ('decode_head', 'auxiliary_head'):
        made.cfg.model[head].num_classes = 1


def one_class_with_sigmoid(made: TinySet, **loss: Any) -> None:
    one_class(made)
    for head in ('decode_head', 'auxiliary_head'):
        made.cfg.model[head].loss_decode = loss or dict(type='CrossEntropyLoss', use_sigmoid=True)


def three_classes(*parts: str) -> Change:
    def change(made: TinySet) -> None:
        for part in PARTS:
            made.dataset(part).metainfo = dict(classes=('ground', 'road', 'sky'))
        for head in ('decode_head', 'auxiliary_head'):
            made.cfg.model[head].num_classes = 3
        for path in [path for part in parts for path in sorted((made.root / 'ann' / part).iterdir())]:
            Image.fromarray(set_value(2)(np.array(Image.open(path)))).save(path)

    return change


def batch(size: int, **others: Any) -> Change:
    return every(lambda made: made.cfg.train_dataloader.update(batch_size=size, **others))


def repeated(made: TinySet) -> None:
    batch(3)(made)
    made.cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=made.dataset().to_dict())


def two_training_sets(made: TinySet) -> None:
    """The road is in one of them alone."""
    for path in (made.root / 'ann/val').iterdir():
        Image.new('L', (WIDTH, HEIGHT)).save(path)
    made.dataset().update(data_prefix=dict(img_path='img/val', seg_map_path='ann/val'))
    both = [made.dataset().to_dict(), mask_set(made.root / 'more').dataset().to_dict()]
    made.cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    for part in ('val', 'test'):
        made.cfg[f'{part}_dataloader'].dataset = mask_set(made.root / 'third').dataset('val').to_dict()


SEG: dict[str, tuple[Callable[[np.ndarray], Any], Change, Any]] = {
    'sound': (*seg(nothing), case()),
    'palette': (palette, nothing, case()),
    'one bit': (lambda mask: Image.fromarray(mask.astype(bool)), nothing, case()),
    '16 bits': (lambda mask: mask.astype(np.uint16), nothing, case()),
    '16 bits, another value': (
        lambda mask: set_value(300)(mask.astype(np.uint16)), nothing,
        case('mask value without class'),
    ),
    'ignored pixels': (set_value(255), nothing, case()),
    '0 and 255': (lambda mask: mask * 255, nothing, case('masks of 0 and 255')),
    '0 and 255, of one bit as gray': (
        lambda mask: Image.fromarray(mask.astype(bool)).convert('L'), nothing,
        case('masks of 0 and 255'),
    ),
    '0, 1 and 9': (set_value(9), nothing, case('mask value without class')),
    '1 and 2': (lambda mask: mask + 1, nothing, case('class without a pixel, mask value without class')),
    'all ground': (lambda mask: mask * 0, nothing, case('class without a pixel')),
    'RGB': (colors, nothing, case('color mask', '')),
    'RGBA': (lambda mask: colors(mask).convert('RGBA'), nothing, case('color mask', '')),
    'gray with alpha': (lambda mask: Image.fromarray(mask).convert('LA'), nothing, case('color mask', '')),
    'another size': (lambda mask: mask[:, :-1], nothing, case('wrong mask size')),
    'turned image beside an unturned mask': (
        *seg(every(lambda made: turned(made.root / 'img/train/0.jpg', 1, (96, 64)))), case('wrong mask size')
    ),
    'turned image, mask as seen': (
        *seg(every(lambda made: turned(made.root / 'img/train/0.jpg', 1, (64, 96)))), case('', 'EXIF orientation')
    ),
    'a class without a pixel': (*seg(three_classes('val')), case('class without a pixel')),
    'a class without a pixel in validation': (*seg(three_classes('train')), case('', 'class without an object')),
    'one class with softmax': (lambda mask: mask * 0, one_class, case('config does not fit')),
    'one class with sigmoid': (lambda mask: mask * 0, one_class_with_sigmoid, case()),
    'one class with another loss': (
        lambda mask: mask * 0,
        every(lambda made: one_class_with_sigmoid(made, type='DiceLoss')),
        case(),
    ),
    'a class in one of two training sets': (*seg(two_training_sets), case()),
    'missing mask': (*seg(every(lambda made: (made.root / 'ann/train/0.png').unlink())), case('missing mask')),
    'damaged mask': (*seg(every(lambda made: damage(made.root / 'ann/train/0.png'))), case('unreadable mask')),
    'pipe as mask': (
        *seg(every(lambda made: [(made.root / 'ann/train/0.png').unlink(), os.mkfifo(made.root / 'ann/train/0.png')])),
        case('unreadable mask'),
    ),
    'suffix in capitals': (
        *seg(every(lambda made: draw(made.root / 'img/train/9.JPG', 3))),
        case('', 'files left out'),
    ),
    'no image of the suffix': (
        *seg(every(lambda made: made.dataset().update(img_suffix='.tif'))), case('empty split', 'files left out')
    ),
    'batch of one': (*seg(batch(1)), case('config does not fit')),
    'last batch of one': (*seg(batch(3)), case('config does not fit')),
    'last batch dropped': (*seg(batch(3, drop_last=True)), case()),
    'endless sampler': (*seg(batch(3, sampler=dict(type='InfiniteSampler'))), case()),
    'last batch of a repeated set': (*seg(repeated), case()),
    'batch of one without pooling': (
        *seg(every(lambda made: [batch(1)(made), made.cfg.model.decode_head.update(type='FCNHead')])), case()
    ),
    'batch of one with group norm': (
        *seg(every(lambda made: [batch(1)(made), made.cfg.model.decode_head.norm_cfg.update(type='GN')])), case()
    ),
    'heads of another size': (
        *seg(every(lambda made: made.cfg.model.auxiliary_head.update(num_classes=19))), case('config does not fit')
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', SEG)
def test_semantic_masks(name: str, tmp_path: Path) -> None:
    masks, change, expected = SEG[name]
    made = mask_set(tmp_path, masks)
    change(made)
    agree(made, *expected)


# Class folders


def empty_folder(made: TinySet) -> None:
    for part in ('train', 'val'):
        (made.root / part / 'emu').mkdir()
    made.cfg.model.head.num_classes = 3


FOLDERS: dict[str, tuple[Change, Any]] = {
    'sound': (every(lambda made: None), case()),
    'other suffixes': (
        every(lambda made: [draw(made.root / 'train/cat/8.webp', 8), draw(made.root / 'train/dog/9.JPG', 9)]),
        case('', 'files left out'),
    ),
    'folder of a notebook': (
        every(lambda made: (made.root / 'train/.ipynb_checkpoints').mkdir()),
        case('classes do not fit, empty class folder'),
    ),
    'empty folder': (empty_folder, case('empty class folder', 'class without an object')),
    'folder missing in validation': (
        every(lambda made: shutil.rmtree(made.root / 'val/dog')), case('classes do not fit')
    ),
    'other folders in validation': (
        every(lambda made: (made.root / 'val/dog').rename(made.root / 'val/cow')), case('classes do not fit')
    ),
    'another head': (every(lambda made: made.cfg.model.head.update(num_classes=1000)), case('config does not fit')),
    'more guesses than classes': (
        every(lambda made: made.cfg.val_evaluator.update(topk=(1, 5))), case('config does not fit')
    ),
    'ImageNet with folders of your own': (
        every(lambda made: [made.dataset(part).update(type='ImageNet') for part in PARTS]), case('classes do not fit')
    ),
    'classes in another order': (
        every(lambda made: made.dataset().update(metainfo=dict(classes=('dog', 'cat')))), case('classes do not fit')
    ),
    'no folders': (
        every(lambda made: made.dataset().update(data_prefix='train/cat')), case('broken annotation file')
    ),
    'damaged image': (
        every(lambda made: (made.root / 'train/cat/0.jpg').write_bytes(b'\xff\xd8')), case('unreadable image')
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', FOLDERS)
def test_class_folders(name: str, tmp_path: Path) -> None:
    made = folder_set(tmp_path)
    change, expected = FOLDERS[name]
    change(made)
    agree(made, *expected)


# What is wrong in the config itself ends both with status 2 before a file is read.


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda made: made.dataset().update(metainfo=dict(classes='car')), "('car',)"),
        (lambda made: made.dataset().update(metainfo=dict(classes=('car', 'car'))), 'car'),
        (lambda made: made.dataset().update(metainfo=dict(classes=('car', 7))), '7'),
        (lambda made: made.dataset().update(type='NoDataset'), 'NoDataset'),
        (lambda made: made.dataset().update(color='red'), 'color'),
        (lambda made: (made.root / 'train').rename(made.root / 'moved'), 'train'),
    ],
)
def test_configs_that_cannot_be_checked(change: Callable[[TinySet], Any], named: str, tmp_path: Path) -> None:
    made = coco_set(tmp_path)
    change(made)
    path = made.write()
    with pytest.raises(UserError) as caught:
        check_before_training(Config.fromfile(path), PARTS)
    result = run_cli('check-data', path, '--samples', '0')
    assert named in str(caught.value)
    assert result.status == 2
    assert named in result.err

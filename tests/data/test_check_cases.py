"""Tables of data as people have them: the check in front of a run and ``check-data`` find the same errors in each."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmres2net.data.check.before import check_before_training
from mmres2net.errors import UserError
from tests.data.tiny_sets import OBJECT, TinySet, coco_set, draw, folder_set, mask_set, turned, voc_set
from tests.support.cli import run_cli

Change = Callable[[TinySet], Any]
Cases = dict[str, tuple[Any, ...]]  # what is changed, then the kinds of errors and of notes, separated by commas
PARTS = ('train', 'val', 'test')


def kinds_in(text: str, severity: str) -> set[str]:
    return set(re.findall(rf'{severity}: [\d,]+ x ([^(]+) \(', text))


def errors_before_a_run(cfg: Config) -> set[str]:
    try:
        check_before_training(cfg, PARTS)
    except UserError as error:
        return kinds_in(str(error), 'error')
    return set()


def change(function: Callable[..., Any]) -> Callable[..., Change]:
    return lambda *args, **options: lambda made: function(made, *args, **options)


def both(*changes: Change) -> Change:
    return lambda made: [change(made) for change in changes]


def set_key(entries: list[dict[str, Any]], key: str, value: Any) -> None:
    """Set a key of all entries; ``...`` removes it."""
    for entry in entries:
        entry[key] = value
        if value is ...:
            del entry[key]


def annotations(key: str, value: Any, *, part: str = 'train', count: int | None = 1) -> Change:
    return lambda made: set_key(made.content[part]['annotations'][:count], key, value)


def images(key: str, value: Any, part: str = 'train') -> Change:
    return lambda made: set_key(made.content[part]['images'][:1], key, value)


segm = partial(annotations, 'segmentation')


def config(part: str = 'train', **values: Any) -> Change:
    return lambda made: made.dataset(part).update(values)


def classes(*names: Any, part: str = 'train') -> Change:
    return config(part, metainfo=dict(classes=names))


def classes_everywhere(*names: str) -> Change:
    return both(*(classes(*names, part=part) for part in PARTS))


def head(name: str, **values: Any) -> Change:
    return lambda made: (made.cfg.model.get('roi_head') or made.cfg.model)[name].update(values)


@change
def renumber(made: TinySet, image: Callable[[int], Any], annotation: Callable[[int], Any]) -> None:
    for content in made.content.values():
        for entry in content['images']:
            entry['id'] = image(entry['id'])
        for entry in content['annotations']:
            entry['image_id'], entry['id'] = image(entry['image_id']), annotation(entry['id'])


def more_categories(number: int, name: str) -> Change:
    entry = {'id': number, 'name': name}
    return lambda made: [content['categories'].insert(0, entry) for content in made.content.values()]


@change
def json_file(made: TinySet, text: str | bytes) -> None:
    made.write()
    made.content = {}
    (made.root / 'train.json').write_bytes(text if isinstance(text, bytes) else text.encode())


def damage(path: Path) -> None:
    """Flip bytes in the middle of a file, of which the end stays sound."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(byte ^ 0xFF for byte in data[middle : middle + 40])
    path.write_bytes(data)


@change
def first_image(made: TinySet, make: Callable[[Path], Any], name: str = '0.jpg') -> None:
    (made.root / 'train/0.jpg').unlink()
    made.content['train']['images'][0]['file_name'] = name
    make(made.root / 'train' / name)


def challenge(made: TinySet) -> None:
    made.content['test'] = {key: made.content['val'][key] for key in ('images', 'categories')}
    made.cfg.test_dataloader.dataset.ann_file = 'test.json'
    files = dict(ann_file=str(made.root / 'test.json'), outfile_prefix=str(made.root / 'out'))
    made.cfg.test_evaluator.update(files, format_only=True)


def evaluate_training_data(made: TinySet) -> None:
    for part in ('val', 'test'):
        made.dataset(part).update(ann_file='train.json', data_prefix=dict(img='train/'))
        made.cfg[f'{part}_evaluator'].ann_file = str(made.root / 'train.json')


LOAD_AS_STORED = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
RUNS = {'size': [64, 96], 'counts': [10, 50, 64 * 96 - 60]}
COCO: Cases = {
    'sound': (both(),), 'ids as texts': (renumber(lambda i: f'img-{i}', str),),
    'two images of one id': (images('id', 2), 'duplicate image id, annotation without image'),
    'an image twice': (images('file_name', '1.jpg'), 'duplicate image'),
    'iscrowd as text': (annotations('iscrowd', '0', count=None), 'broken annotation, empty split'),
    'no area': (annotations('area', ...), 'broken annotation'),
    'area of NaN': (annotations('area', float('nan')), 'broken annotation'),
    'area 0': (annotations('area', 0), '', 'annotation left out'),
    'bbox with NaN': (annotations('bbox', [float('nan'), 1, 5, 5]), 'box that is not finite'),
    'bbox with a huge number': (annotations('bbox', [1, 1, 10**400, 5]), 'broken annotation'),
    'box without width': (annotations('bbox', [5, 5, 0, 9]), '', 'annotation left out'),
    'box outside': (annotations('bbox', [310, 5, 9, 9]), '', 'annotation left out'),
    'box partly outside': (annotations('bbox', [80, 5, 30, 9]), '', 'box beyond the image'),
    'no segmentation, boxes only': (segm([]),),
    'unknown category': (annotations('category_id', 99), 'label without class'),
    'unknown image': (annotations('image_id', 777), 'annotation without image'),
    'image without id': (images('id', ...), 'broken annotation, annotation without image'),
    'image without size': (images('width', ...), 'broken annotation, annotation without image'),
    'image size of 0': (images('width', 0), 'wrong image size', 'annotation left out'),
    'another image size': (images('width', 90), 'wrong image size'),
    'backslash in a name': (images('file_name', '..\\train\\0.jpg'), 'missing image'),
    'super-category of the same name': (more_categories(0, 'car'), 'classes do not fit'),
    'two categories of one id': (more_categories(1, 'x'), 'classes do not fit'),
    'a class of the config alone': (classes('car', 'cow'), 'classes do not fit'),
    'another order of classes': (classes('dog', 'car'), 'classes do not fit'),
    'some of the classes': (both(classes_everywhere('dog'), head('bbox_head', num_classes=1)), '', 'unknown class'),
    'a class without an object': (annotations('category_id', 2, count=None), '', 'class without an object'),
    'challenge': (challenge,),
    'validation without objects': (
        lambda made: made.content['val']['annotations'].clear(), 'empty split', 'image without annotations',
    ),
    'no annotations': (lambda made: made.content['train'].pop('annotations'), 'empty split'),
    'no images': (lambda made: made.content['train']['images'].clear(), 'annotation without image, empty split'),
    'filtered to nothing': (config(filter_cfg=dict(min_size=200)), 'empty split'),
    'evaluation on training data': (evaluate_training_data, '', 'same set in training and evaluation'),
    'an image of training in validation': (
        images('file_name', '../train/0.jpg', 'val'), 'same image in training and evaluation',
    ),
    'JSON nested': (json_file('[' * 200_000), 'broken annotation file'),
    'JSON with a byte mark': (json_file(b'\xef\xbb\xbf{"images": [], "categories": []}'), 'broken annotation file'),
    'damaged PNG': (first_image(lambda path: damage(draw(path, 0)), '0.png'), 'unreadable image'),
    'cut JPEG': (first_image(lambda path: path.write_bytes(draw(path, 5).read_bytes()[:-200])), 'unreadable image'),
    'pipe as image': (first_image(lambda path: os.mkfifo(path)), 'unreadable image'),
    'missing image': (first_image(lambda path: None), 'missing image'),
    'image that OpenCV cannot read': (first_image(lambda path: draw(path, 1), '0.tga'), 'unreadable image'),
    'turned image, annotated as stored': (first_image(lambda path: turned(path, 1, (96, 64))), 'wrong image size'),
    'turned image that is loaded as stored': (
        both(first_image(lambda path: turned(path, 1, (96, 64))), config(pipeline=[LOAD_AS_STORED])),
    ),
    'turned image, annotated as seen': (first_image(lambda path: turned(path, 1, (64, 96))), '', 'EXIF orientation'),
}  # fmt: skip
MASKS: Cases = {
    'sound': (both(),), 'run lengths': (segm(RUNS),), 'segmentation absent': (segm(...), 'object without mask'),
    'absent in validation': (segm([], part='val'), 'object without mask'),
    'two points in validation': (segm([[1, 1, 9, 9]], part='val'), 'object without mask'),
    'odd numbers': (segm([[1, 1, 9, 1, 9, 9, 5]]), '', 'polygon left out'),
    'polygon with NaN': (segm([[float('nan')] * 6]), 'broken mask of an object'),
    'runs of another size': (segm({'size': [4, 4], 'counts': [16]}), 'broken mask of an object'),
    'runs of a huge size': (segm({'size': [2**30, 2**30], 'counts': [2**60]}), 'broken mask of an object'),
    'heads of another size': (head('mask_head', num_classes=80), 'config does not fit'),
}  # fmt: skip


@change
def xml(made: TinySet, old: str, new: str, *, name: str = 'train0') -> None:
    path = made.root / f'Annotations/{name}.xml'
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def voc_object(*box: Any, label: str = 'car', difficult: int = 0, part: str = 'train') -> Change:
    node = OBJECT.format(label, *box).replace('<difficult>0', f'<difficult>{difficult}')
    return xml('</annotation>', f'{node}</annotation>', name=f'{part}0')


@change
def voc_name(made: TinySet, new: str, suffix: str = '.jpg') -> None:
    (made.root / 'JPEGImages/train0.jpg').rename(made.root / f'JPEGImages/{new}{suffix}')
    (made.root / 'Annotations/train0.xml').rename(made.root / f'Annotations/{new}.xml')
    lines = (made.root / 'train.txt').read_text().replace('train0\n', f'{new}\n')
    (made.root / 'train.txt').write_text(lines)


@change
def voc_list(made: TinySet, data: Callable[[bytes], bytes], name: str = 'train.txt') -> None:
    (made.root / name).write_bytes(data((made.root / name).read_bytes()))


voc_xml = partial(voc_list, name='Annotations/train0.xml')


def encoded(name: str) -> Callable[[bytes], bytes]:
    return lambda data: f'<?xml version="1.0" encoding="{name}"?>'.encode() + data


BOMB = b'<!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaa">%s]><annotation>&a9;</annotation>' % b''.join(
    b'<!ENTITY a%d "%s">' % (i, b'&a%d;' % (i - 1) * 10) for i in range(1, 10)
)
VOC: Cases = {
    'sound': (both(),), 'name with umlauts': (voc_name('Straße ä'),),
    'suffix in capitals': (voc_name('x', '.JPG'), 'missing image'),
    'box outside': (voc_object(310, 5, 320, 20), 'empty box'),
    'box outside in validation': (voc_object(310, 5, 320, 20, part='val'), '', 'annotation left out'),
    'box partly outside': (voc_object(80, 5, 120, 20), '', 'box beyond the image'),
    'box without width': (voc_object(20, 5, 20, 30), 'empty box'),
    'box reversed': (voc_object(40, 30, 10, 5), 'empty box'),
    'box without width, difficult': (voc_object(20, 5, 20, 30, difficult=1), '', 'annotation left out'),
    'box without width, difficult and trained on': (
        both(voc_object(20, 5, 20, 30, difficult=1), config(pipeline=[dict(type='mmres2net.TrainOnDifficult')])),
        'empty box',
    ),
    'too small': (both(voc_object(20, 5, 20, 30), config(filter_cfg=dict(bbox_min_size=4))), '', 'annotation left out'),
    'box of texts': (voc_object('ten', 5, 40, 20), 'broken annotation'),
    'no name': (xml('<name>car</name>', ''), 'broken annotation'),
    'difficult as text': (xml('<difficult>0', '<difficult>Unspecified'), 'broken annotation'),
    'another size': (xml('<width>96<', '<width>95<'), 'wrong image size'),
    'name in capitals': (xml('<name>car<', '<name>Car<'), 'misspelled class'),
    'another name': (xml('<name>car<', '<name>tree<'), '', 'unknown class'),
    'another vocabulary': (classes_everywhere('cat', 'cow'), 'classes do not fit, empty split'),
    'empty line': (voc_list(lambda data: data + b'\n'), 'broken annotation'),
    'name twice': (voc_list(lambda data: data + b'train0\n'), 'duplicate image id'),
    'list with a byte order mark': (voc_list(lambda data: b'\xef\xbb\xbf' + data), 'broken annotation file'),
    'Windows lines': (voc_list(lambda data: data.replace(b'\n', b'\r\n')),),
    'list in latin-1': (voc_list(lambda data: data + 'Straße\n'.encode('latin-1')), 'broken annotation file'),
    'XML in GBK': (voc_xml(encoded('GBK')), 'broken annotation'), 'XML in latin-1': (voc_xml(encoded('ISO-8859-1')),),
    'XML bomb': (voc_xml(lambda data: BOMB), 'broken annotation'),
    'XML of 40 MB': (voc_xml(lambda data: data + b' ' * (40 * 2**20)), 'broken annotation'),
    'XML absent': (lambda made: (made.root / 'Annotations/train0.xml').unlink(), 'missing annotation file'),
}  # fmt: skip


def set_value(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(mask: np.ndarray) -> np.ndarray:
        mask[0, :3] = value
        return mask

    return change


def masks(change: Callable[[np.ndarray], Any]) -> Change:
    return lambda made: mask_set(made.root, change)


BLACK = masks(lambda mask: mask * 0)
HEADS = ('decode_head', 'auxiliary_head')


def one_class(**loss: Any) -> Change:
    changes = [head(name, num_classes=1, **({'loss_decode': loss} if loss else {})) for name in HEADS]
    return both(BLACK, classes_everywhere('road'), *changes)


def three_classes(*parts: str) -> Change:
    def add_pixels(made: TinySet) -> None:
        for path in [path for part in parts for path in sorted((made.root / 'ann' / part).iterdir())]:
            Image.fromarray(set_value(2)(np.array(Image.open(path)))).save(path)

    return both(classes_everywhere('ground', 'road', 'sky'), *(head(name, num_classes=3) for name in HEADS), add_pixels)


def turned_image(size: tuple[int, int]) -> Change:
    return lambda made: turned(made.root / 'img/train/0.jpg', 1, size)


def batch(size: int, **others: Any) -> Change:
    return lambda made: made.cfg.train_dataloader.update(batch_size=size, **others)


def without_mask(made: TinySet) -> None:
    (made.root / 'ann/train/0.png').unlink()


SEG: Cases = {
    'sound': (both(),), 'one bit': (masks(lambda mask: Image.fromarray(mask.astype(bool))),),
    '16 bits, another value': (masks(lambda mask: set_value(300)(mask.astype(np.uint16))), 'mask value without class'),
    '0 and 255': (masks(lambda mask: mask * 255), 'masks of 0 and 255'),
    '1 and 2': (masks(lambda mask: mask + 1), 'class without a pixel, mask value without class'),
    'all ground': (BLACK, 'class without a pixel'),
    'RGB': (masks(lambda mask: Image.fromarray(mask * 255).convert('RGB')), 'unusable mask'),
    'another size': (masks(lambda mask: mask[:, :-1]), 'wrong mask size'),
    'turned image beside an unturned mask': (turned_image((96, 64)), 'wrong mask size'),
    'turned image, mask as seen': (turned_image((64, 96)), '', 'EXIF orientation'),
    'a class without a pixel': (three_classes('val'), 'class without a pixel'),
    'a class without a pixel in validation': (three_classes('train'), '', 'class without an object'),
    'one class with softmax': (one_class(), 'config does not fit'),
    'one class with sigmoid': (one_class(type='CrossEntropyLoss', use_sigmoid=True),),
    'missing mask': (without_mask, 'missing mask'),
    'damaged mask': (lambda made: damage(made.root / 'ann/train/0.png'), 'unreadable mask'),
    'pipe as mask': (both(without_mask, lambda made: os.mkfifo(made.root / 'ann/train/0.png')), 'unreadable mask'),
    'suffix in capitals': (lambda made: draw(made.root / 'img/train/9.JPG', 3), '', 'files left out'),
    'no image of the suffix': (config(img_suffix='.tif'), 'empty split', 'files left out'),
    'batch of one': (batch(1), 'config does not fit'), 'last batch of one': (batch(3), 'config does not fit'),
    'last batch dropped': (batch(3, drop_last=True),),
    'endless sampler': (batch(3, sampler=dict(type='InfiniteSampler')),),
    'heads of another size': (head('auxiliary_head', num_classes=19), 'config does not fit'),
}  # fmt: skip


def folder(name: str) -> Change:
    return lambda made: (made.root / name).mkdir()


FOLDERS: Cases = {
    'sound': (both(),),
    'suffix in capitals': (lambda made: draw(made.root / 'train/dog/9.JPG', 9),),
    'folder of a notebook': (folder('train/.ipynb_checkpoints'), 'classes do not fit, empty class folder'),
    'empty folder': (
        both(folder('train/emu'), folder('val/emu'), head('head', num_classes=3)),
        'empty class folder', 'class without an object',
    ),
    'other folders in validation': (
        lambda made: (made.root / 'val/dog').rename(made.root / 'val/cow'), 'classes do not fit',
    ),
    'another head': (head('head', num_classes=1000), 'config does not fit'),
    'more guesses than classes': (lambda made: made.cfg.val_evaluator.update(topk=(1, 5)), 'config does not fit'),
    'ImageNet with folders of your own': (
        both(*(config(part, type='ImageNet') for part in PARTS)), 'classes do not fit',
    ),
    'classes in another order': (classes('dog', 'cat'), 'classes do not fit'),
    'no folders': (config(data_prefix='train/cat'), 'broken annotation file'),
}  # fmt: skip


SETS: dict[str, tuple[Callable[[Path], TinySet], Cases]] = {
    'COCO': (coco_set, COCO), 'COCO with masks': (lambda root: coco_set(root, masks=True), MASKS),
    'VOC': (voc_set, VOC), 'semantic masks': (mask_set, SEG), 'class folders': (folder_set, FOLDERS),
}  # fmt: skip


@pytest.mark.parametrize(('kind', 'name'), [(kind, name) for kind, (_, cases) in SETS.items() for name in cases])
def test_both_checks_find_the_same(kind: str, name: str, tmp_path: Path) -> None:
    make, cases = SETS[kind]
    apply, *expected = cases[name]
    errors, notes = ({one for one in text.split(', ') if one} for text in (*expected, '', '')[:2])
    made = make(tmp_path)
    apply(made)
    path = made.write()
    result = run_cli('check-data', path, '--samples', '0')
    assert errors_before_a_run(made.cfg) == kinds_in(result.out, 'error') == errors
    assert result.status == int(bool(errors))
    assert notes <= kinds_in(result.out, 'note')


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (config(metainfo=dict(classes='car')), "('car',)"), (classes('car', 'car'), 'car'), (classes('car', 7), '7'),
        (config(type='NoDataset'), 'NoDataset'), (config(color='red'), 'color'),
        (lambda made: (made.root / 'train').rename(made.root / 'moved'), 'train'),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_checked(change: Callable[[TinySet], Any], named: str, tmp_path: Path) -> None:
    made = coco_set(tmp_path)
    change(made)
    path = made.write()
    with pytest.raises(UserError, match=re.escape(named)):
        check_before_training(Config.fromfile(path), PARTS)
    result = run_cli('check-data', path, '--samples', '0')
    assert (result.status, named in result.err) == (2, True)

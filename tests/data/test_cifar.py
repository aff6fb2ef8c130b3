"""CIFAR-100: what is read out of the original files, in every form they come in, and what is refused."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmres2net.data.check.before import check_before_training
from mmres2net.data.check.job import check_splits
from mmres2net.data.check.report import ERRORS
from mmres2net.data.cifar import CIFAR100, COARSE, FINE, CIFAR100Coarse, read_pickle
from mmres2net.data.formats.read import read_splits
from mmres2net.errors import UserError
from tests.support.hostile import Payload
from tests.support.realdata import data_root

META = {'fine_label_names': list(FINE), 'coarse_label_names': list(COARSE)}


def content_of(count: int = 4, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        'data': rng.integers(0, 256, (count, 3072), np.uint8),
        'fine_labels': [(7 * i) % 100 for i in range(count)],
        'coarse_labels': [(3 * i) % 20 for i in range(count)],
        'filenames': [f'{i}.png' for i in range(count)],
        'batch_label': 'training batch 1 of 1',
        **changes,
    }


def dump(folder: Path, content: Any, name: str = 'train', protocol: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content, protocol))
    return folder / name


def short(text: bytes) -> bytes:
    return b'U' + bytes([len(text)]) + text


def python2_pickle(content: dict[str, Any]) -> bytes:
    """The pickle that Python 2 makes of a file's content: byte strings as `str`, numpy by its old names."""
    data = content['data']
    out = io.BytesIO()
    out.write(b'\x80\x02}(')
    for kind in ('fine', 'coarse'):
        numbers = b''.join(b'K' + bytes([label]) for label in content[f'{kind}_labels'])
        out.write(short(f'{kind}_labels'.encode()) + b'](' + numbers + b'e')
    out.write(short(b'data') + b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85' + short(b'b'))
    out.write(b'\x87R(K\x01M' + struct.pack('<H', len(data)) + b'M\x00\x0c\x86cnumpy\ndtype\n' + short(b'u1'))
    out.write(b'K\x00K\x01\x87R(K\x03' + short(b'|') + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89')
    raw = data.tobytes()
    out.write(b'T' + struct.pack('<i', len(raw)) + raw + b'tbu.')
    return out.getvalue()


def assert_is(dataset: CIFAR100, content: dict[str, Any], labels: str) -> None:
    assert len(dataset) == len(content['data'])
    for i, row in enumerate(content['data']):
        sample = dataset[i]
        for channel in range(3):
            assert np.array_equal(sample['img'][:, :, channel], row[1024 * channel :][:1024].reshape(32, 32))
        assert sample['img'].dtype == np.uint8
        assert sample['gt_label'] == content[labels][i]
        assert sample['sample_idx'] == i


@pytest.mark.parametrize('protocol', [0, 2, 5])
@pytest.mark.parametrize('serialize', [True, False])
def test_pixels_and_labels_are_those_of_the_file(tmp_path: Path, protocol: int, serialize: bool) -> None:
    content = content_of()
    dump(tmp_path, {**content, 'data': np.asfortranarray(content['data'])}, protocol=protocol)
    assert_is(CIFAR100('train', data_root=str(tmp_path), serialize_data=serialize), content, 'fine_labels')
    assert_is(CIFAR100Coarse('train', data_root=str(tmp_path)), content, 'coarse_labels')
    assert len(CIFAR100('train', data_root=str(tmp_path), indices=2)) == 2


@pytest.mark.parametrize('module', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_file_of_python_2_is_read(tmp_path: Path, module: bytes) -> None:
    """As in the official files, the pixels are a string of Python 2."""
    content = content_of()
    data = python2_pickle(content)
    assert pickle.loads(data, encoding='latin1')['data'].tolist() == content['data'].tolist()
    (tmp_path / 'train').write_bytes(data.replace(b'cnumpy.core.multiarray\n', b'c' + module + b'\n'))
    assert_is(CIFAR100('train', data_root=str(tmp_path)), content, 'fine_labels')


def test_samples_go_through_mmpretrains_pipeline(tmp_path: Path) -> None:
    dump(tmp_path, content_of())
    init_default_scope('mmpretrain')
    steps = [dict(type='RandomCrop', crop_size=32, padding=4), dict(type='PackInputs')]
    node = dict(type='mmres2net.CIFAR100', data_root=str(tmp_path), ann_file='train', pipeline=steps)
    sample = DATASETS.build(node)[1]
    assert tuple(sample['inputs'].shape) == (3, 32, 32)
    assert sample['data_samples'].gt_label.tolist() == content_of()['fine_labels'][1:2]


@pytest.mark.realdata
@pytest.mark.parametrize(('name', 'count', 'classes'), [('train', 486, 99), ('test', 916, 100)])
def test_real_files(name: str, count: int, classes: int) -> None:
    root = str(data_root('cifar100_mini') / 'cifar-100-python')
    fine, coarse = CIFAR100(name, data_root=root), CIFAR100Coarse(name, data_root=root)
    pairs = {(fine[i]['gt_label'], coarse[i]['gt_label']) for i in range(len(fine))}
    assert len(fine) == count
    assert len(pairs) == len({pair[0] for pair in pairs}) == classes  # each fine class is of one coarse class
    # The first image of each file, by the class in its name: cattle, from bos_taurus, and mountain, from volcano
    first = dict(train=('cattle', 'large_omnivores_and_herbivores'), test=('mountain', 'large_natural_outdoor_scenes'))
    assert (FINE[fine[0]['gt_label']], COARSE[coarse[0]['gt_label']]) == first[name]
    raw = pickle.loads((Path(root) / name).read_bytes(), encoding='latin1')['data']
    assert np.array_equal(fine[3]['img'].transpose(2, 0, 1).ravel(), raw[3])


@pytest.mark.parametrize('name', ['train', 'meta'])
@pytest.mark.parametrize('protocol', [0, 4])
def test_hostile_pickle_is_named_and_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    mark = tmp_path / 'was_run'
    dump(tmp_path, content_of())
    path = dump(tmp_path, {**(META if name == 'meta' else content_of()), 'extra': Payload(mark)}, name, protocol)
    with pytest.raises(UserError, match=r'\w+\.system') as caught:
        CIFAR100('train', data_root=str(tmp_path))
    assert str(path) in str(caught.value)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # what the plain reader does with it
    assert mark.exists()


def test_nothing_but_the_parts_of_arrays_is_found(tmp_path: Path) -> None:
    for code, named in {
        b'cos\nsystem\nU\x04true\x85R.': 'os.system',
        b'\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.': 'numpy.ndarray.tofile',
        b'cnumpy\nload\n.': 'numpy.load',
        b'c__builtin__\ngetattr\n.': '__builtin__.getattr',
        b'c_codecs\ndecode\n.': '_codecs.decode',
    }.items():
        (tmp_path / 'train').write_bytes(code)
        with pytest.raises(UserError, match=named):
            read_pickle(tmp_path / 'train')


class Odd:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return np.zeros(1).__reduce_ex__(5)[0], self.arguments


U1 = np.dtype('u1')
BROKEN = [
    (dict(data=Odd(b'', U1, ('a', 3072), 'C')), 'array'),
    (dict(data=Odd(b'', U1, ('a', 10**12), 'C')), 'array'),  # a text of a terabyte, if it were multiplied
    (dict(data=Odd(5, U1, (4, 3072), 'C')), r'\(4, 3072\)'),
    (dict(data=Odd('\u0416' * 12288, U1, (4, 3072), 'C')), 'UnicodeEncodeError'),
    (dict(data=Odd(b'12345', U1, (4, 3072), 'C')), r'\(4, 3072\)'),
    (dict(data=Odd(b'', 'u1', (4, 3072), 'C')), r'\(4, 3072\)'),
    (dict(data=np.zeros((4, 3071), np.uint8)), r'shape \(4, 3071\)'),
    (dict(data=np.zeros((4, 3072), np.int64)), 'int64'),
    (dict(data=np.array([[1] * 3072] * 4, dtype=object)), 'array of something other than numbers'),
    (dict(data=[[0] * 3072] * 4), 'list'),
    (dict(data=np.zeros((0, 3072), np.uint8), fine_labels=[]), r'\(0, 3072\)'),
    (dict(fine_labels=[1, 2, 3]), r"'fine_labels' has 3 entries for 4 images"),
    (dict(fine_labels=(1, 2, 3, 4)), r"'fine_labels' has a tuple for 4 images"),
    (dict(fine_labels=[1, 2, 100, -1]), r'2 of 4 fine_labels .*0 to 99.*100'),
    (dict(fine_labels=[1, 2, 'cattle', 4]), r"the first is 'cattle'"),
]


@pytest.mark.parametrize(('changes', 'message'), BROKEN)
def test_content_that_does_not_fit_is_one_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = dump(tmp_path, content_of(**changes))
    with pytest.raises(UserError, match=message) as caught:
        CIFAR100('train', data_root=str(tmp_path))
    assert str(path) in str(caught.value)


def test_other_files_are_one_error(tmp_path: Path) -> None:
    dump(tmp_path, {'data': content_of()['data'], 'labels': [0] * 4}, 'labels')
    dump(tmp_path, [1, 2], 'list')
    whole = dump(tmp_path, content_of()).read_bytes()
    (tmp_path / 'empty').touch()
    (tmp_path / 'cut').write_bytes(whole[:500])
    (tmp_path / 'last').write_bytes(whole[:-1])
    again = r'.*cifar-100-python\.tar\.gz'
    for name, message in {
        'labels': "'fine_labels'.*data, labels", 'list': 'has a list', 'none': 'No such', '.': 'directory',
        'empty': again, 'cut': again, 'last': again,
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=message):
            CIFAR100(name, data_root=str(tmp_path))


def test_meta_with_other_classes_is_one_error(tmp_path: Path) -> None:
    dump(tmp_path, content_of())
    dump(tmp_path, META, 'meta')
    assert len(CIFAR100('train', data_root=str(tmp_path))) == 4
    dump(tmp_path, {**META, 'coarse_label_names': [*COARSE[1::-1], *COARSE[2:]]}, 'meta')
    assert len(CIFAR100('train', data_root=str(tmp_path))) == 4
    with pytest.raises(UserError, match=r"'fish'.*'aquatic_mammals'"):
        CIFAR100Coarse('train', data_root=str(tmp_path))
    dump(tmp_path, {'label_names': ['airplane']}, 'meta')
    with pytest.raises(UserError, match=r"no 'fine_label_names'"):
        CIFAR100('train', data_root=str(tmp_path))


def config_of(kind: str, classes: int, root: str) -> Config:
    def loader(name: str) -> dict[str, Any]:
        return dict(dataset=dict(type=f'mmres2net.{kind}', data_root=root, ann_file=name, pipeline=[]))

    model = dict(head=dict(type='LinearClsHead', num_classes=classes))
    loaders = dict(train_dataloader=loader('train'), val_dataloader=loader('test'))
    return Config(dict(default_scope='mmpretrain', model=model, **loaders))


def test_check_data_counts_its_classes(tmp_path: Path) -> None:
    for name in ('train', 'test'):
        dump(tmp_path, content_of(), name)
    splits = read_splits(config_of('CIFAR100Coarse', 20, str(tmp_path)), ['train', 'val'])
    reports = check_splits(splits, workers=1)
    assert [report.count(ERRORS) for report in reports] == [0, 0]
    assert 'aquatic_mammals' in reports[0].as_text(5)
    with pytest.raises(UserError, match='num_classes=100'):
        check_before_training(config_of('CIFAR100Coarse', 100, str(tmp_path)), ['train'])

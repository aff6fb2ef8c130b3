"""CIFAR-100: what is read out of the binary version, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config

from mmres2net.data.check.before import check_before_training
from mmres2net.data.check.job import ERRORS, check_splits
from mmres2net.data.cifar import CIFAR100, COARSE, FINE, CIFAR100Coarse
from mmres2net.data.formats.read import read_splits
from mmres2net.errors import UserError
from tests.support.realdata import cifar100_mini, data_root


def write(folder: Path, *names: str) -> np.ndarray:
    """Write four images; return their records."""
    records = np.random.default_rng(0).integers(0, 256, (4, 3074), np.uint8)
    records[:, 0], records[:, 1] = [0, 3, 6, 19], [0, 7, 14, 99]
    for name in names:
        records.tofile(folder / f'{name}.bin')
    return records


@pytest.mark.parametrize('serialize', [True, False])
def test_pixels_and_labels_are_those_of_the_file(tmp_path: Path, serialize: bool) -> None:
    records = write(tmp_path, 'train')
    for kind, label in ((CIFAR100, 1), (CIFAR100Coarse, 0)):
        dataset = kind('train.bin', data_root=str(tmp_path), serialize_data=serialize)
        assert len(dataset) == 4
        for i, record in enumerate(records):
            sample = dataset[i]
            for channel in range(3):
                assert np.array_equal(sample['img'][:, :, channel], record[2 + 1024 * channel :][:1024].reshape(32, 32))
            assert (sample['img'].dtype, sample['gt_label'], sample['sample_idx']) == (np.uint8, record[label], i)
    assert len(CIFAR100('train.bin', data_root=str(tmp_path), indices=2)) == 2


@pytest.mark.realdata
@pytest.mark.parametrize(('name', 'count', 'classes'), [('train', 486, 99), ('test', 916, 100)])
def test_real_images(name: str, count: int, classes: int, tmp_path: Path) -> None:
    root = str(cifar100_mini(tmp_path) / 'cifar-100-binary')
    fine, coarse = CIFAR100(f'{name}.bin', data_root=root), CIFAR100Coarse(f'{name}.bin', data_root=root)
    pairs = {(fine[i]['gt_label'], coarse[i]['gt_label']) for i in range(len(fine))}
    assert len(fine) == count
    assert len(pairs) == len({pair[0] for pair in pairs}) == classes  # each fine class is of one coarse class
    # The first image of each file, by the class in its name: cattle, from bos_taurus, and mountain, from volcano
    first = dict(train=('cattle', 'large_omnivores_and_herbivores'), test=('mountain', 'large_natural_outdoor_scenes'))
    assert (FINE[fine[0]['gt_label']], COARSE[coarse[0]['gt_label']]) == first[name]
    meta = pickle.loads((data_root('cifar100_mini') / 'cifar-100-python/meta').read_bytes())
    assert (meta['fine_label_names'], meta['coarse_label_names']) == (list(FINE), list(COARSE))


def test_other_files_are_one_error(tmp_path: Path) -> None:
    whole = write(tmp_path, 'train').tobytes()
    (tmp_path / 'pickle').write_bytes(pickle.dumps({'data': [0], 'fine_labels': [0]}))
    (tmp_path / 'empty').touch()
    (tmp_path / 'cut').write_bytes(whole[:-1])
    (tmp_path / 'label').write_bytes(bytes([19, 100]) + whole[2:])
    messages = {'none': 'No such', '.': 'directory', 'label': '100.* 0 to 99'}
    for name, message in (messages | dict.fromkeys(('pickle', 'empty', 'cut'), 'bytes')).items():
        with pytest.raises(UserError, match=f'{message}.*prepare-data cifar100'):
            CIFAR100(name, data_root=str(tmp_path))
    assert len(CIFAR100Coarse('label', data_root=str(tmp_path))) == 4


def config_of(kind: str, classes: int, root: str) -> Config:
    def loader(name: str) -> dict[str, Any]:
        return dict(dataset=dict(type=f'mmres2net.{kind}', data_root=root, ann_file=name, pipeline=[]))

    model = dict(head=dict(type='LinearClsHead', num_classes=classes))
    loaders = dict(train_dataloader=loader('train.bin'), val_dataloader=loader('test.bin'))
    return Config(dict(default_scope='mmpretrain', model=model, **loaders))


def test_check_data_counts_its_classes(tmp_path: Path) -> None:
    write(tmp_path, 'train', 'test')
    splits = read_splits(config_of('CIFAR100Coarse', 20, str(tmp_path)), ['train', 'val'])
    reports = check_splits(splits)
    assert [report.count(ERRORS) for report in reports] == [0, 0]
    assert 'aquatic_mammals' in reports[0].as_text(5)
    with pytest.raises(UserError, match='num_classes=100'):
        check_before_training(config_of('CIFAR100Coarse', 100, str(tmp_path)), ['train'])

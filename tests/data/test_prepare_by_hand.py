"""Data sets that the user brings in whole or part, and those of salient objects: what is laid out, refused and said."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mmres2net.data.prepare import job
from mmres2net.data.prepare.job import DATASETS, Check, DataSet, Job, prepare
from mmres2net.errors import UserError
from tests.support.archive_server import Server, small_set, zip_of
from tests.support.folders import contents


def files(folder: str, suffix: str, count: int) -> dict[str, bytes]:
    return {f'{folder}/{i}{suffix}': f'{folder} {i}'.encode() for i in range(count)}


def write(root: Path, content: Mapping[str, bytes]) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def moved(content: Mapping[str, bytes], places: Mapping[str, str]) -> dict[str, bytes]:
    return {f'{places[name.rpartition("/")[0]]}/{name.rpartition("/")[2]}': data for name, data in content.items()}


PASCAL = {**files('datasets/imgs/pascal', '.jpg', 4), **files('datasets/masks/pascal', '.png', 4)}
PASCAL_PLACES = {'datasets/imgs/pascal': 'PASCAL-S/images', 'datasets/masks/pascal': 'PASCAL-S/masks'}
MORE = {'datasets/fixations/pascalFix.mat': b'x', 'algmaps/pascal/humanFix/1.png': b'x', 'readme.txt': b'x'}


def pascal_s() -> DataSet:
    return small_set('pascal-s', {'*.jpg': 4, '*.png': 4})


def msra_b(server: Server) -> DataSet:
    flat = {**files('MSRA-B', '.jpg', 6), **files('MSRA-B', '.png', 6)}
    counts = {'*.jpg': 6, '*.png': 6, 'train.txt': 3, 'val.txt': 1, 'test.txt': 2}
    return small_set('msra-b', counts, server, MSRA_B=zip_of(flat))


LISTS = {'train': ['5.jpg', '0.jpg', '2.jpg'], 'val': ['1.jpg'], 'test': ['3.jpg', '4.jpg']}


@pytest.mark.parametrize('form', ['mat', 'pairs'])
def test_msra_b_wants_its_lists(server: Server, tmp_path: Path, form: str) -> None:
    dataset, source, root = msra_b(server), tmp_path / 'given', tmp_path / 'data'
    with pytest.raises(UserError) as caught:
        prepare(Job(dataset, root))
    for part in (f'{root}/saliency/MSRA-B/train.txt', '~hzjiang/drfi/', '--from DIR', f'{root}/downloads'):
        assert part in str(caught.value)
    assert len(contents(root / 'saliency/MSRA-B')) == 12
    source.mkdir()
    for split, names in LISTS.items():
        if form == 'mat':
            cells = np.array([[name] for name in names], dtype=object)
            savemat(source / f'{split}ImgSet.mat', {f'{split}ImgSet': cells})
        else:
            lines = [f'Imgs/{name} Imgs/{Path(name).stem}.png' for name in names]
            (source / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    before = contents(source)
    prepare(Job(dataset, root, source))
    expected = {f'images/{i}.jpg': f'MSRA-B {i}'.encode() for i in range(6)}
    expected |= {f'masks/{i}.png': f'MSRA-B {i}'.encode() for i in range(6)}
    expected |= {'train.txt': b'5\n0\n2\n', 'val.txt': b'1\n', 'test.txt': b'3\n4\n'}
    assert contents(root / 'saliency/MSRA-B') == expected
    assert contents(source) == before, 'only read'
    prepare(Job(dataset, root))
    assert [path for path, _ in server.log] == ['MSRA-B.zip']


@pytest.mark.parametrize('begin', ['', 'datasets/', 'salObj/datasets/', 'salObj/'])
def test_pascal_s_unpacked_anywhere(tmp_path: Path, begin: str) -> None:
    content = PASCAL | MORE
    if begin == 'datasets/':
        content = {name.removeprefix('datasets/'): data for name, data in content.items()}
    elif begin.startswith('salObj'):
        content = {f'salObj/{name}': data for name, data in content.items()}
    source = write(tmp_path / 'given', content)
    (source / 'datasets').mkdir(exist_ok=True)
    given = source / 'salObj/datasets' if begin == 'salObj/datasets/' else source
    prepare(Job(pascal_s(), tmp_path / 'data', given))
    assert contents(tmp_path / 'data/saliency') == moved(PASCAL, PASCAL_PLACES)
    assert contents(source) == content


@pytest.mark.parametrize('where', ['given', 'data/downloads'])
def test_pascal_s_from_its_archive(tmp_path: Path, where: str) -> None:
    folder = write(tmp_path / where, {'salObj.zip': zip_of(PASCAL | MORE)})
    source = folder if where == 'given' else None
    prepare(Job(pascal_s(), tmp_path / 'data', source))
    assert contents(tmp_path / 'data/saliency') == moved(PASCAL, PASCAL_PLACES)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'data/saliency').rglob('*.jpg')}
    (tmp_path / 'data/saliency/PASCAL-S/masks/2.png').unlink()
    prepare(Job(pascal_s(), tmp_path / 'data', source))
    assert contents(tmp_path / 'data/saliency') == moved(PASCAL, PASCAL_PLACES)
    assert {path: path.stat().st_mtime_ns for path in times} == times, 'nothing twice'
    assert (folder / 'salObj.zip').is_file()


@pytest.mark.parametrize(
    ('packed', 'dataset', 'message'),
    [
        (zip_of(PASCAL)[:-300], pascal_s(), r'(?s)given/salObj\.zip.*--from'),
        (zip_of({'datasets/imgs/pascal/../../../../evil.jpg': b'x'}), pascal_s(), 'evil'),
        (zip_of(PASCAL), DATASETS['pascal-s'], 'e48b4e5deac08bddcaec55ce56e4d420'),
    ],
    ids=['cut short', 'hostile', 'not the official one'],
)
def test_archives_that_are_refused(tmp_path: Path, packed: bytes, dataset: DataSet, message: str) -> None:
    source = write(tmp_path / 'given', {'salObj.zip': packed})
    with pytest.raises(UserError, match=message):
        prepare(Job(dataset, tmp_path / 'data', source))
    assert not list(tmp_path.rglob('*.jpg'))


def test_imagenet_is_checked(tmp_path, capsys, monkeypatch) -> None:
    counts = {'train/*/': 2, 'train/*/*.JPEG': 5, 'val/*/': 2, 'val/*/*.JPEG': 3}
    monkeypatch.setitem(DATASETS, 'imagenet', small_set('imagenet', counts))
    train = files('imagenet/train/n1', '.JPEG', 3) | files('imagenet/train/n2', '.JPEG', 2)
    root = write(tmp_path / 'data', train)
    flags = ['imagenet', '--root', str(root)]
    with pytest.raises(UserError, match=r'(?s)val/\*/: 0 of 2.*val/\*/\*\.JPEG: 0 of 3') as caught:
        job.main(flags)
    assert 'imagenet/train/*' not in str(caught.value)
    assert f'{root}/imagenet/train' in str(caught.value)
    with pytest.raises(UserError, match=r'--from .*imagenet'):
        job.main([*flags, '--from', str(tmp_path)])
    write(root, {**files('imagenet/val/n1', '.JPEG', 1), **files('imagenet/val/n2', '.JPEG', 2)})
    capsys.readouterr()
    assert job.main(flags) == 0
    out = capsys.readouterr().out
    assert 'https://image-net.org/' in out
    assert f'mmres2net train imagenet/res2net50_26w_4s.py --data {root}/imagenet' in out


@pytest.mark.parametrize('begin', ['HKU-IS/', ''])
def test_hku_is_unpacked(tmp_path: Path, begin: str) -> None:
    content = {**files(f'{begin}imgs', '.png', 5), **files(f'{begin}gt', '.png', 5)}
    others = {f'{begin}imgs/Thumbs.db': b'x', f'{begin}gt/._0.png': b'x', 'HKU-IS.rar': b'Rar!'}
    prepare(Job(small_set('hku-is', {'png': 5}), tmp_path / 'data', write(tmp_path / 'given', content | others)))
    places = {f'{begin}imgs': 'HKU-IS/images', f'{begin}gt': 'HKU-IS/masks'}
    assert contents(tmp_path / 'data/saliency') == moved(content, places)


def test_what_is_missing_is_told_with_what_to_do(tmp_path: Path) -> None:
    dataset, root = replace(small_set('hku-is', {'png': 5}), config='x'), tmp_path / 'data'
    with pytest.raises(UserError) as caught:
        prepare(Job(dataset, root))
    for part in ('images/*.png: 0 of 5', 'masks/*.png: 0 of 5', 'HKU-IS.rar', '--from DIR', f'{root}/downloads'):
        assert part in str(caught.value)
    assert not (root / 'downloads').exists()
    source = write(tmp_path / 'given', {**files('imgs', '.png', 5), **files('gt', '.png', 4), 'gt/9.png': b'x'})
    with pytest.raises(UserError, match=r'images/\*\.png: 1 files for it are missing, such as .*HKU-IS/masks/4\.png'):
        prepare(Job(dataset, root, source))
    assert Check('saliency/HKU-IS/masks/*.png', 5).fault(root) == ''

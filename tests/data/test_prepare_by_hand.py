"""Data sets that the user brings in whole or part, and those of salient objects: what is laid out, refused and said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mmres2net.data.prepare import job
from mmres2net.data.prepare.checks import Check, Classes, Files, Listed, Masks
from mmres2net.data.prepare.job import Job, prepare
from mmres2net.data.prepare.sources import DATASETS, DataSet
from mmres2net.errors import UserError
from mmres2net.fetch.download import RetryPolicy
from tests.support.archive_server import Server, archive_of, tar_of, zip_of
from tests.support.folders import contents

SMALL = {'train.txt': 3, 'val.txt': 1, 'test.txt': 2}


def fewer(check: Check, count: int) -> Check:
    if isinstance(check, Listed):
        return replace(check, count=SMALL[Path(check.path).name])
    return check if isinstance(check, Masks) else replace(check, count=count)


def small(name: str, count: int) -> DataSet:
    row = DATASETS[name]
    by_hand = row.by_hand
    if name in ('pascal-s', 'dut-omron'):  # the archives of these tests are not the official ones
        by_hand = replace(by_hand, parts=tuple(replace(part, md5='') for part in by_hand.parts))
    return replace(row, checks=tuple(fewer(check, count) for check in row.checks), by_hand=by_hand)


def served(server: Server, dataset: DataSet, packed: Mapping[str, bytes], count: int) -> DataSet:
    """A row whose archives are these, known by SHA-256 alone as the shipped ones are."""
    rows = []
    for row in dataset.archives:
        assert len(row.sha256) == 64
        assert not row.md5
        checks = tuple(fewer(check, count) for check in row.checks)
        fake = archive_of(server, row.name, packed[row.name], row.places, checks=checks)
        rows.append(replace(fake, md5='', sha256=hashlib.sha256(packed[row.name]).hexdigest()))
    return replace(dataset, archives=tuple(rows))


def files(folder: str, suffix: str, count: int) -> dict[str, bytes]:
    return {f'{folder}/{i}{suffix}': f'{folder} {i}'.encode() for i in range(count)}


def write(root: Path, content: Mapping[str, bytes]) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def moved(content: Mapping[str, bytes], places: Mapping[str, str]) -> dict[str, bytes]:
    return {f'{places[name.rpartition("/")[0]]}/{name.rpartition("/")[2]}': data for name, data in content.items()}


def hasty(dataset: DataSet, root: Path, source: Path | None = None) -> Job:
    return Job(dataset, root, source=source, patience=RetryPolicy(tries=1, pause=0.01, timeout=5.0))


ECSSD = {**files('images', '.jpg', 4), **files('ground_truth_mask', '.png', 4)}
PASCAL = {**files('datasets/imgs/pascal', '.jpg', 4), **files('datasets/masks/pascal', '.png', 4)}
PASCAL_PLACES = {'datasets/imgs/pascal': 'PASCAL-S/images', 'datasets/masks/pascal': 'PASCAL-S/masks'}
MORE = {'datasets/fixations/pascalFix.mat': b'x', 'algmaps/pascal/humanFix/1.png': b'x', 'readme.txt': b'x'}


def test_ecssd_from_its_two_archives(server: Server, tmp_path: Path) -> None:
    packed = {
        'images.zip': zip_of({name: data for name, data in ECSSD.items() if name.startswith('images')}),
        'ground_truth_mask.zip': zip_of({name: data for name, data in ECSSD.items() if name.startswith('ground')}),
    }
    dataset = served(server, small('ecssd', 4), packed, 4)
    prepare(hasty(dataset, tmp_path))
    made = moved(ECSSD, {'images': 'ECSSD/images', 'ground_truth_mask': 'ECSSD/masks'})
    assert contents(tmp_path / 'saliency') == made
    prepare(hasty(dataset, tmp_path))
    assert [path for path, _ in server.log] == ['images.zip', 'ground_truth_mask.zip']
    # Another file of the same size is not the archive.
    server.files['images.zip'] = server.files['images.zip'][:-1] + b'?'
    (tmp_path / 'downloads/images.zip').unlink()
    (tmp_path / 'saliency/ECSSD/images/2.jpg').unlink()
    with pytest.raises(UserError, match=r'images\.zip.*\n.*SHA256 is \w+, not'):
        prepare(hasty(dataset, tmp_path))


def msra_b(server: Server) -> DataSet:
    flat = {**files('MSRA-B', '.jpg', 6), **files('MSRA-B', '.png', 6)}
    return served(server, small('msra-b', 6), {'MSRA-B.zip': zip_of(flat)}, 6)


LISTS = {'train': ['5.jpg', '0.jpg', '2.jpg'], 'val': ['1.jpg'], 'test': ['3.jpg', '4.jpg']}


@pytest.mark.parametrize('form', ['mat', 'txt', 'pairs'])
def test_msra_b_wants_its_lists(server: Server, tmp_path: Path, form: str) -> None:
    dataset, source, root = msra_b(server), tmp_path / 'given', tmp_path / 'data'
    with pytest.raises(UserError) as caught:
        prepare(hasty(dataset, root))
    for part in (f'{root}/saliency/MSRA-B/train.txt', '~hzjiang/drfi/', '--from DIR', f'{root}/downloads'):
        assert part in str(caught.value)
    assert len(contents(root / 'saliency/MSRA-B')) == 12
    source.mkdir()
    for split, names in LISTS.items():
        if form == 'mat':
            cells = np.array([[name] for name in names], dtype=object)
            savemat(source / f'{split}ImgSet.mat', {f'{split}ImgSet': cells})
        else:
            lines = [f'Imgs/{name} Imgs/{Path(name).stem}.png' if form == 'pairs' else name for name in names]
            (source / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    before = contents(source)
    prepare(hasty(dataset, root, source))
    expected = {f'images/{i}.jpg': f'MSRA-B {i}'.encode() for i in range(6)}
    expected |= {f'masks/{i}.png': f'MSRA-B {i}'.encode() for i in range(6)}
    expected |= {'train.txt': b'5\n0\n2\n', 'val.txt': b'1\n', 'test.txt': b'3\n4\n'}
    assert contents(root / 'saliency/MSRA-B') == expected
    assert contents(source) == before, 'only read'
    assert [path for path, _ in server.log] == ['MSRA-B.zip']
    prepare(hasty(dataset, root))
    assert len(server.log) == 1


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
    prepare(hasty(small('pascal-s', 4), tmp_path / 'data', given))
    assert contents(tmp_path / 'data/saliency') == moved(PASCAL, PASCAL_PLACES)


@pytest.mark.parametrize('where', ['given', 'data/downloads'])
def test_pascal_s_from_its_archive(tmp_path: Path, where: str) -> None:
    source = write(tmp_path / where, {'salObj.zip': zip_of(PASCAL | MORE)})
    dataset = small('pascal-s', 4)
    prepare(hasty(dataset, tmp_path / 'data', source if where == 'given' else None))
    assert contents(tmp_path / 'data/saliency') == moved(PASCAL, PASCAL_PLACES)
    assert (source / 'salObj.zip').is_file()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'data/saliency').rglob('*')}
    (tmp_path / 'data/saliency/PASCAL-S/masks/2.png').unlink()
    prepare(hasty(dataset, tmp_path / 'data', source if where == 'given' else None))
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / 'data/saliency').rglob('*.jpg')}
    assert all(times[path] == stamp for path, stamp in after.items()), 'nothing twice'


def test_imagenet_is_checked_and_not_contents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {'train': (2, 5), 'val': (2, 3)}
    checks = tuple(Classes(f'imagenet/{part}', '.JPEG', *numbers) for part, numbers in parts.items())
    datasets = {'imagenet': replace(DATASETS['imagenet'], checks=checks)}
    train = files('imagenet/train/n1', '.JPEG', 3) | files('imagenet/train/n2', '.JPEG', 2)
    root = write(tmp_path / 'data', train)
    with pytest.raises(UserError, match=r'imagenet/val has 0 of 2 .* 0 of 3 \.JPEG files') as caught:
        job.main(['imagenet', '--root', str(root)], datasets)
    assert 'imagenet/train has' not in str(caught.value)
    assert f'{root}/imagenet/train' in str(caught.value)
    with pytest.raises(UserError, match=r'--from .*imagenet'):
        job.main(['imagenet', '--root', str(root), '--from', str(tmp_path)], datasets)
    write(root, {**files('imagenet/val/n1', '.JPEG', 1), **files('imagenet/val/n2', '.JPEG', 1)})
    with pytest.raises(UserError, match=r'imagenet/val has 2 of 2 class folders, with 2 of 3 \.JPEG files'):
        job.main(['imagenet', '--root', str(root)], datasets)
    write(root, files('imagenet/val/n2', '.JPEG', 2))
    capsys.readouterr()
    assert job.main(['imagenet', '--root', str(root)], datasets) == 0
    out = capsys.readouterr().out
    assert 'https://image-net.org/' in out
    assert f'mmres2net train imagenet/res2net50_26w_4s.py --data {root}/imagenet' in out


def test_cifar100_from_its_archive(server: Server, tmp_path: Path) -> None:
    content = {f'cifar-100-python/{name}': name.encode() for name in ('train', 'test', 'meta', 'file.txt~')}
    row = DATASETS['cifar100'].archives[0]
    fake = archive_of(server, row.name, tar_of(content, mode='w:gz'), row.places, checks=row.checks)
    dataset = replace(DATASETS['cifar100'], archives=(fake,))
    prepare(hasty(dataset, tmp_path))
    assert contents(tmp_path / 'cifar-100-python') == {name.partition('/')[2]: data for name, data in content.items()}


@pytest.mark.parametrize(
    ('name', 'count'), {'msra-b': 5_000, 'ecssd': 1_000, 'pascal-s': 850, 'hku-is': 4_447, 'dut-omron': 5_168}.items()
)
def test_numbers_of_images(name: str, count: int) -> None:
    found = [check for check in DATASETS[name].checks if isinstance(check, Files)]
    assert [check.count for check in found] == [count, count]
    folder = name.upper()
    assert [check.folder for check in found] == [f'saliency/{folder}/images', f'saliency/{folder}/masks']
    lists = {check.path: check.count for check in DATASETS[name].checks if isinstance(check, Listed)}
    assert name != 'msra-b' or list(lists.values()) == [2_500, 500, 2_000]


MSRA_B_LISTS = {'train.txt': b'5\n9\n2\n', 'val.txt': b'1\n', 'test.txt': b'3\n'}


@pytest.mark.parametrize(
    ('lists', 'parts'),
    [
        ({'trainImgSet.mat': b'no mat file'}, ['trainImgSet.mat']),
        (MSRA_B_LISTS, ['2 files that ', 'images/9.jpg', 'test.txt lists 1 images, not 2']),
    ],
)
def test_lists_that_do_not_fit(server: Server, tmp_path: Path, lists: dict[str, bytes], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        prepare(hasty(msra_b(server), tmp_path / 'data', write(tmp_path / 'given', lists)))
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ('packed', 'official', 'message'),
    [
        (zip_of(PASCAL)[:-300], False, r'(?s)given/salObj\.zip.*--from'),
        (zip_of({'datasets/imgs/pascal/../../../../evil.jpg': b'x'}), False, 'evil'),
        (zip_of(PASCAL), True, 'e48b4e5deac08bddcaec55ce56e4d420'),
    ],
    ids=['cut short', 'hostile', 'not the official one'],
)
def test_archives_that_are_refused(tmp_path: Path, packed: bytes, official: bool, message: str) -> None:
    source = write(tmp_path / 'given', {'salObj.zip': packed})
    dataset = DATASETS['pascal-s'] if official else small('pascal-s', 4)
    with pytest.raises(UserError, match=message):
        prepare(hasty(dataset, tmp_path / 'data', source))
    assert not list(tmp_path.rglob('*.jpg'))


@pytest.mark.parametrize('begin', ['HKU-IS/', ''])
def test_hku_is_unpacked(tmp_path: Path, begin: str) -> None:
    content = {**files(f'{begin}imgs', '.png', 5), **files(f'{begin}gt', '.png', 5)}
    source = write(tmp_path / 'given', {**content, f'{begin}imgs/Thumbs.db': b'x', f'{begin}gt/._0.png': b'x'})
    prepare(hasty(small('hku-is', 5), tmp_path / 'data', source))
    places = {f'{begin}imgs': 'HKU-IS/images', f'{begin}gt': 'HKU-IS/masks'}
    assert contents(tmp_path / 'data/saliency') == moved(content, places)


def test_dut_omron_from_its_two_archives(tmp_path: Path) -> None:
    images, masks = files('DUT-OMRON-image', '.jpg', 3), files('pixelwiseGT-new-PNG', '.png', 3)
    mac = {'__MACOSX/DUT-OMRON-image/._0.jpg': b'x'}
    packed = {'DUT-OMRON-image.zip': zip_of(images | mac), 'DUT-OMRON-gt-pixelwise.zip.zip': zip_of(masks)}
    prepare(hasty(small('dut-omron', 3), tmp_path / 'data', write(tmp_path / 'given', packed)))
    places = {'DUT-OMRON-image': 'DUT-OMRON/images', 'pixelwiseGT-new-PNG': 'DUT-OMRON/masks'}
    assert contents(tmp_path / 'data/saliency') == moved(images | masks, places)


def test_what_is_missing_is_told_with_what_to_do(tmp_path: Path) -> None:
    dataset, root = small('hku-is', 5), tmp_path / 'data'
    with pytest.raises(UserError) as caught:
        prepare(hasty(dataset, root))
    for part in ('images has 0 of 5 .png', 'masks has 0 of 5 .png', 'HKU-IS.rar', '--from DIR', f'{root}/downloads'):
        assert part in str(caught.value)
    assert not (root / 'downloads').exists()
    source = write(tmp_path / 'given', {**files('imgs', '.png', 5), **files('gt', '.png', 4), 'gt/9.png': b'x'})
    with pytest.raises(UserError, match=r'1 images of .*images have no mask in .*HKU-IS/masks, such as 4'):
        prepare(hasty(dataset, root, source))

"""The whole job against a local server with small archives: what it makes, continues, refuses and says."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from mmengine.config import Config

from mmres2net.data.layout import datasets_of, needed_paths, point_at
from mmres2net.data.prepare import job
from mmres2net.data.prepare.checks import Files, Listed, Present
from mmres2net.data.prepare.job import Job, prepare
from mmres2net.data.prepare.sbd import make_trainaug
from mmres2net.data.prepare.sources import DATASETS, DataSet
from mmres2net.errors import UserError
from mmres2net.fetch.download import RetryPolicy
from mmres2net.files import locked
from mmres2net.paths import config_dir
from tests.support.archive_server import Answer, Server, archive_of, heed_interrupts, tar_of, zip_of
from tests.support.folders import contents
from tests.support.voc_files import make_voc

Capture, Patch = pytest.CaptureFixture[str], pytest.MonkeyPatch
TRAIN, ANNOTATIONS = 'train2017.zip', 'annotations_trainval2017.zip'


@pytest.fixture
def coco(server: Server, root: Path) -> DataSet:
    """COCO's row with archives of the embedded set, which has 60 training and 14 validation images."""
    counts, rows = {TRAIN: 60, 'val2017.zip': 14}, []
    for row in DATASETS['coco'].archives:
        folder = row.name.partition('_')[0].removesuffix('.zip')
        packed = zip_of({f'{folder}/{path.name}': path.read_bytes() for path in sorted((root / folder).iterdir())})
        checks = tuple(replace(c, count=counts[row.name]) if isinstance(c, Files) else c for c in row.checks)
        rows.append(archive_of(server, row.name, packed, row.places, checks=checks))
    return replace(DATASETS['coco'], archives=tuple(rows), checks=tuple(c for row in rows for c in row.checks))


def hasty(dataset: DataSet, root: Path, **options: object) -> Job:
    return Job(dataset, root, patience=RetryPolicy(tries=2, pause=0.01, timeout=5.0), **options)  # type: ignore[arg-type]


def check_coco(made: Path, original: Path) -> None:
    """The folder is the original, in the layout that the shipped config reads."""
    folders = ('train2017/', 'val2017/', 'annotations/')
    assert contents(made) == {name: data for name, data in contents(original).items() if name.startswith(folders)}
    cfg = point_at(Config.fromfile(config_dir() / 'faster_rcnn_r2n50.py'), made)
    assert {dataset['data_root'] for part in ('train', 'val') for dataset in datasets_of(cfg, part)} == {str(made)}


def test_coco_is_made_and_once(server: Server, coco: DataSet, root: Path, tmp_path: Path, capsys: Capture) -> None:
    prepare(hasty(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert [path for path, _ in server.log] == [ANNOTATIONS, 'val2017.zip', TRAIN]
    assert {path.name for path in (tmp_path / 'downloads').iterdir()} == {ANNOTATIONS, TRAIN, 'val2017.zip'}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    capsys.readouterr()
    assert job.main(['coco', '--root', str(tmp_path)], {'coco': coco}) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before
    assert len(server.log) == 3
    told = capsys.readouterr()
    assert 'unpacking' not in told.err
    assert '60 .jpg files in coco/train2017' in told.out
    assert f'mmres2net train faster_rcnn_r2n50.py --data {tmp_path}/coco' in told.out


def test_only_what_was_lost_is_made_again(server: Server, coco: DataSet, root: Path, tmp_path: Path) -> None:
    prepare(hasty(coco, tmp_path, remove=True))
    assert not (tmp_path / 'downloads').exists()
    lost = sorted((tmp_path / 'coco/val2017').iterdir())[3]
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / 'coco').rglob('*.jpg') if path != lost}
    lost.unlink()
    prepare(hasty(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert [path for path, _ in server.log[3:]] == ['val2017.zip']
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_damaged_ones_are_fetched(server: Server, coco: DataSet, root: Path, tmp_path: Path, capsys: Capture) -> None:
    """Those of the user are left; a damaged download is removed."""
    source, downloads = tmp_path / 'given', tmp_path / 'data/downloads'
    source.mkdir()
    downloads.mkdir(parents=True)
    (source / TRAIN).write_bytes(b'cut short')
    (source / ANNOTATIONS).write_bytes(server.files[ANNOTATIONS])
    content = bytearray(server.files['val2017.zip'])
    content[5000] ^= 1
    (downloads / 'val2017.zip').write_bytes(content)
    before = contents(source)
    prepare(hasty(coco, tmp_path / 'data', source=source, remove=True))
    check_coco(tmp_path / 'data/coco', root)
    assert server.log == [('val2017.zip', None), (TRAIN, None)]
    assert contents(source) == before
    told = capsys.readouterr().err
    for text in (
        f'{source}/{TRAIN} is damaged',
        f'val2017.zip is not in {source}',
        f'{downloads}/val2017.zip is damaged',
    ):
        assert text in told


def test_broken_archive_is_fetched_once_more(server: Server, coco: DataSet, tmp_path: Path, capsys: Capture) -> None:
    """A table's sum that fits, and no zip file: the error ends, and names the file."""
    broken = archive_of(server, 'val2017.zip', b'PK no zip' * 99, {'val2017/': 'coco/val2017/'}, checks=(Present('x'),))
    with pytest.raises(UserError, match=r'downloads/val2017\.zip has the right MD5, but it cannot be unpacked'):
        prepare(hasty(replace(coco, archives=(broken,)), tmp_path))
    assert len(server.log) == 2
    assert 'val2017.zip is damaged: it cannot be unpacked' in capsys.readouterr().err


def test_full_disk_is_an_error(server: Server, coco: DataSet, root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    done: list[int] = []

    def full(source: BinaryIO, target: BinaryIO, *_: int) -> None:
        if len(done) == 20:
            raise OSError(errno.ENOSPC, 'No space left on device')
        done.append(target.write(source.read()))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'copyfileobj', full)  # what zipfile writes with
        with pytest.raises(UserError, match='the disk is full'):
            prepare(hasty(coco, tmp_path))
    assert not list((tmp_path / 'coco').rglob('*2017/*.jpg')) or len(done) == 20  # an archive is in place or absent
    prepare(hasty(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert not list((tmp_path / 'downloads').glob('*.unpacking'))
    assert len(server.log) == 3


def test_archives_are_removed_only_once_all_is_done(server: Server, coco: DataSet, root: Path, tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        raise UserError('a mask cannot be read')

    with pytest.raises(UserError, match='a mask cannot be read'):
        prepare(hasty(replace(coco, finish=broken), tmp_path, remove=True))
    (tmp_path / 'coco/val2017').rename(tmp_path / 'lost')
    prepare(hasty(replace(coco, finish=lambda folder: None), tmp_path, remove=True))
    check_coco(tmp_path / 'coco', root)
    assert len(server.log) == 3  # nothing was fetched twice


def test_room_counts_what_is_there_already(server: Server, coco: DataSet, tmp_path: Path, monkeypatch: Patch) -> None:
    annotations, val, train = coco.archives
    need = sum(2 * archive.size for archive in coco.archives)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(need, 0, need - 1))
        with pytest.raises(UserError, match='--root'):
            prepare(hasty(coco, tmp_path))
    assert (server.log, list(tmp_path.iterdir())) == ([], [])
    (tmp_path / 'downloads').mkdir()
    (tmp_path / 'downloads' / val.name).write_bytes(server.files[val.name])
    (tmp_path / 'downloads' / f'{train.name}.part').write_bytes(b'x' * 1000)
    (tmp_path / 'coco/val2017').mkdir(parents=True)
    (tmp_path / 'coco/val2017/a.jpg').write_bytes(b'x' * 50)
    downloads = annotations.size + train.size - 1000
    unpacked = {'annotations': annotations.size, 'val2017': val.size - 50, 'train2017': train.size}
    expected = {tmp_path / 'coco' / name: size for name, size in unpacked.items()}
    expected[tmp_path / 'downloads'] = downloads
    assert job.space_needed(hasty(coco, tmp_path), coco.archives) == expected
    expected[tmp_path / 'downloads'] = max(annotations.size, train.size - 1000)
    assert job.space_needed(hasty(coco, tmp_path, remove=True), coco.archives) == expected


def test_one_job_at_a_time(server: Server, coco: DataSet, tmp_path: Path) -> None:
    (tmp_path / 'downloads').mkdir()
    with locked(tmp_path / 'downloads', busy='taken'), pytest.raises(UserError, match='downloads'):
        prepare(hasty(coco, tmp_path))
    assert server.log == []


def test_voc12aug_from_its_two_archives(server: Server, tmp_path: Path) -> None:
    make_voc(tmp_path / 'made')
    (tmp_path / 'made/VOCdevkit/VOCaug/dataset/img').mkdir()
    (tmp_path / 'made/VOCdevkit/VOCaug/dataset/img/e.jpg').write_bytes(b'a second copy of a photograph')
    files = contents(tmp_path / 'made')
    voc = {name: data for name, data in files.items() if '/VOC2012/' in name}
    places = ('VOCdevkit/VOCaug', 'benchmark_RELEASE')
    sbd = {name.replace(*places): data for name, data in files.items() if 'VOCaug' in name}
    row = DATASETS['voc12aug']
    packed = {'VOCtrainval_11-May-2012.tar': tar_of(voc), 'benchmark.tgz': tar_of(sbd, mode='w:gz')}
    counts = {'train.txt': 2, 'val.txt': 2, 'aug.txt': 2, 'trainaug.txt': 4}
    counts |= {'VOCaug/dataset/train.txt': 3, 'VOCaug/dataset/val.txt': 1}

    def small(check: Files | Listed | Present) -> Files | Listed | Present:
        if isinstance(check, Listed):
            return replace(check, count=next(n for end, n in reversed(counts.items()) if check.path.endswith(end)))
        return replace(check, count=6) if isinstance(check, Files) else check

    rows = tuple(
        archive_of(server, a.name, packed[a.name], a.places, checks=tuple(map(small, a.checks))) for a in row.archives
    )
    dataset = replace(row, archives=rows, checks=tuple(map(small, row.checks)))
    prepare(hasty(dataset, tmp_path / 'data', remove=True))
    make_trainaug(tmp_path / 'made')
    (tmp_path / 'made/VOCdevkit/VOCaug/dataset/img/e.jpg').unlink()
    assert contents(tmp_path / 'data') == contents(tmp_path / 'made')
    # What SBD was needed for is made: it may go.
    for path in (tmp_path / 'data/VOCdevkit/VOCaug/dataset/cls').iterdir():
        path.unlink()
    server.log.clear()
    prepare(hasty(dataset, tmp_path / 'data'))
    assert server.log == []


def test_dry_run_writes_and_fetches_nothing(server: Server, coco: DataSet, tmp_path: Path, capsys: Capture) -> None:
    part = tmp_path / 'data/downloads/train2017.zip.part'
    part.parent.mkdir(parents=True)
    part.write_bytes(b'x' * 1500)
    (tmp_path / 'data/downloads/val2017.zip').write_bytes(server.files['val2017.zip'])
    before = sorted(tmp_path.rglob('*'))
    assert job.main(['coco', '--root', str(tmp_path / 'data'), '--dry-run'], {'coco': coco}) == 0
    assert sorted(tmp_path.rglob('*')) == before
    assert server.log == []
    told = capsys.readouterr().out
    for text in ('1.5 kB', f'{tmp_path}/data/downloads/val2017.zip', server.url(ANNOTATIONS)):
        assert text in told
    assert server.url('val2017.zip') not in told


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_killed_job_continues(server: Server, coco: DataSet, root: Path, tmp_path: Path, how: int) -> None:
    server.answers[TRAIN] = [Answer(pause=0.1)]
    code = (
        'import sys\n'
        'from mmres2net.data.prepare.checks import *\n'
        'from mmres2net.data.prepare.job import Archive, DataSet, main\n'
        f"sys.exit(main(['coco', '--root', {str(tmp_path)!r}], {{'coco': {coco!r}}}))\n"
    )
    command = [sys.executable, '-c', code]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
    part, deadline = tmp_path / f'downloads/{TRAIN}.part', time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    told = process.communicate(timeout=30)[1]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert 'interrupted' in told
        assert 'Traceback' not in told
    have = part.stat().st_size
    assert 0 < have < len(server.files[TRAIN])
    prepare(hasty(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert server.ranges(TRAIN) == [None, f'bytes={have}-']
    assert len(server.log) == 4


@pytest.mark.parametrize('name', DATASETS)
def test_rows_of_the_table(name: str) -> None:
    dataset = DATASETS[name]
    for archive in dataset.archives:
        digest, digits = (archive.md5, 32) if archive.md5 else (archive.sha256, 64)
        assert len(digest) == digits
        assert int(digest, 16)
        assert archive.size > 10**6
        assert archive.checks
        assert len(set(archive.urls)) == len(archive.urls) >= 2
        for url in archive.urls:
            assert url.startswith(('http://', 'https://'))
            assert url.endswith(f'/{archive.name}')
    lists = {check.count for check in dataset.checks if isinstance(check, Listed)}
    assert name != 'voc12aug' or lists == {1_464, 1_449, 9_118, 1_464 + 9_118}


def made_by(dataset: DataSet) -> list[str]:
    """The folders and files that a row brings."""
    named = (getattr(check, 'folder', None) or getattr(check, 'path', None) for check in dataset.checks)
    return [*(place for row in dataset.archives for place in row.places.values()), *filter(None, named)]


@pytest.mark.parametrize('name', [name for name, dataset in DATASETS.items() if dataset.config])
def test_shipped_configs_read_what_is_made(name: str) -> None:
    dataset = DATASETS[name]
    cfg = Config.fromfile(config_dir() / dataset.config)
    # One config reads several sets of salient objects, which lie in one folder.
    rows = [row for row in DATASETS.values() if row.data == dataset.data]
    places = [f'data/{place}' for row in rows for place in made_by(row)]
    for part in ('train', 'val', 'test'):
        for entry in datasets_of(cfg, part):
            root = Path(entry['data_root'])
            assert root.is_relative_to(Path('data') / dataset.data)
            assert len(rows) > 1 or root == Path('data') / dataset.data
            for path in needed_paths(entry):
                full = root / path
                assert any(full.is_relative_to(place) for place in places), full


def test_data_that_others_laid_out(server: Server, coco: DataSet, root: Path, tmp_path: Path) -> None:
    """Complete ones are accepted; files too many and too few are named, and nothing is fetched in vain."""
    (tmp_path / 'coco').symlink_to(root)
    prepare(hasty(coco, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['coco']
    folder = tmp_path / 'other/coco/val2017'
    folder.mkdir(parents=True)
    for i in range(15):
        (folder / f'own{i}.jpg').touch()
    with pytest.raises(UserError, match=r'coco/val2017 has 15 of 14 \.jpg files'):
        prepare(hasty(coco, tmp_path / 'other'))
    assert server.log == []
    more = replace(coco, checks=(*coco.checks, Files('coco/train2017', '.jpg', 61), Present('coco/LICENSE')))
    with pytest.raises(
        UserError, match=r'(?s)coco/train2017 has 60 of 61 \.jpg files.*coco/LICENSE is missing or empty'
    ):
        prepare(hasty(more, tmp_path / 'third'))


def test_mistakes_of_the_command_line(coco: DataSet, tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.touch()
    (tmp_path / 'downloads').touch()
    for flags, named in (
        (['--root', str(tmp_path), '--from', str(tmp_path / 'none')], '--from .*/none'),
        (['--root', str(file)], '--root .*/file'),
        (['--root', str(tmp_path)], 'downloads: File exists'),
    ):
        with pytest.raises(UserError, match=named):
            job.main(['coco', *flags], {'coco': coco})
    with pytest.raises(SystemExit):
        job.main(['imagenet22k'])

"""The whole job against a local server with small archives: what it makes, continues, refuses and says."""

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
from mmres2net.data.prepare.finish import make_trainaug
from mmres2net.data.prepare.job import DATASETS, Check, DataSet, Job, prepare
from mmres2net.errors import UserError
from mmres2net.files import locked
from mmres2net.paths import config_dir
from tests.support.archive_server import Answer, Server, heed_interrupts, small_set, tar_of, zip_of
from tests.support.folders import contents
from tests.support.voc_files import make_voc

Capture, Patch = pytest.CaptureFixture[str], pytest.MonkeyPatch
TRAIN, ANNOTATIONS = 'train2017.zip', 'annotations_trainval2017.zip'


@pytest.fixture
def coco(server: Server, root: Path, monkeypatch: Patch) -> DataSet:
    """COCO's row of the table, replaced by archives of the embedded set: 60 training and 14 validation images."""
    folders = {'train2017': 'train2017', 'val2017': 'val2017', 'annotations_trainval2017': 'annotations'}
    packed = {
        name: zip_of({f'{folder}/{path.name}': path.read_bytes() for path in sorted((root / folder).iterdir())})
        for name, folder in folders.items()
    }
    made = small_set('coco', {'train2017/*.jpg': 60, 'val2017/*.jpg': 14}, server, **packed)
    monkeypatch.setitem(DATASETS, 'coco', made)
    return made


def check_coco(made: Path, original: Path) -> None:
    folders = ('train2017/', 'val2017/', 'annotations/')
    assert contents(made) == {name: data for name, data in contents(original).items() if name.startswith(folders)}
    cfg = point_at(Config.fromfile(config_dir() / 'faster_rcnn_r2n50.py'), made)
    assert {dataset['data_root'] for part in ('train', 'val') for dataset in datasets_of(cfg, part)} == {str(made)}


def test_coco_is_made_once_and_again_what_was_lost(
    server: Server, coco: DataSet, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    prepare(Job(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert [path for path, _ in server.log] == [ANNOTATIONS, 'val2017.zip', TRAIN]
    assert {path.name for path in (tmp_path / 'downloads').iterdir()} == {ANNOTATIONS, TRAIN, 'val2017.zip'}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    capsys.readouterr()
    assert job.main(['coco', '--root', str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before
    assert len(server.log) == 3
    told = capsys.readouterr()
    assert 'unpacking' not in told.err
    assert '60  coco/train2017/*.jpg' in told.out
    assert f'mmres2net train faster_rcnn_r2n50.py --data {tmp_path}/coco' in told.out
    shutil.rmtree(tmp_path / 'downloads')
    lost = sorted((tmp_path / 'coco/val2017').iterdir())[3]
    lost.unlink()
    prepare(Job(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert [path for path, _ in server.log[3:]] == ['val2017.zip']
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / 'coco').rglob('*.jpg') if path != lost}
    assert stamps.items() <= before.items()


def test_damaged_ones_are_fetched(server: Server, coco: DataSet, root: Path, tmp_path: Path, capsys: Capture) -> None:
    source, downloads = tmp_path / 'given', tmp_path / 'data/downloads'
    source.mkdir()
    downloads.mkdir(parents=True)
    (source / TRAIN).write_bytes(b'cut short')
    (source / ANNOTATIONS).write_bytes(server.files[ANNOTATIONS])
    content = bytearray(server.files['val2017.zip'])
    content[5000] ^= 1
    (downloads / 'val2017.zip').write_bytes(content)
    before = contents(source)
    prepare(Job(coco, tmp_path / 'data', source))
    check_coco(tmp_path / 'data/coco', root)
    assert server.log == [('val2017.zip', None), (TRAIN, None)]
    assert contents(source) == before
    told = capsys.readouterr().err
    for text in (f'{source}/{TRAIN} is damaged', f'{downloads}/val2017.zip is damaged'):
        assert text in told


def test_full_disk_is_an_error(server: Server, coco: DataSet, root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    done: list[int] = []

    def full(source: BinaryIO, target: BinaryIO) -> None:
        if len(done) == 12:  # in the second archive
            raise OSError(errno.ENOSPC, 'No space left on device')
        done.append(target.write(source.read()))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'copyfileobj', full)
        with pytest.raises(UserError, match='the disk is full'):
            prepare(Job(coco, tmp_path))
    assert not (tmp_path / 'coco/val2017').exists()  # an archive is in place or absent
    assert list((tmp_path / 'downloads').glob('*.unpacking'))  # the sign that it is not finished
    prepare(Job(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert not list((tmp_path / 'downloads').glob('*.unpacking'))
    assert len(server.log) == 3


def test_too_little_room_is_told_before(server: Server, coco: DataSet, tmp_path: Path, monkeypatch: Patch) -> None:
    need = sum(2 * archive.size for archive in coco.archives)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(need, 0, need - 1))
        with pytest.raises(UserError, match='--root'):
            prepare(Job(coco, tmp_path))
    assert (server.log, list(tmp_path.iterdir())) == ([], [])


def test_voc12aug_from_its_two_archives(server: Server, tmp_path: Path) -> None:
    make_voc(tmp_path / 'made')
    (tmp_path / 'made/VOCdevkit/VOCaug/dataset/img').mkdir()
    (tmp_path / 'made/VOCdevkit/VOCaug/dataset/img/e.jpg').write_bytes(b'a second copy of a photograph')
    files = contents(tmp_path / 'made')
    voc = {name: data for name, data in files.items() if '/VOC2012/' in name}
    places = ('VOCdevkit/VOCaug', 'benchmark_RELEASE')
    sbd = {name.replace(*places): data for name, data in files.items() if 'VOCaug' in name}
    counts = {'VOCaug/dataset/train.txt': 3, 'VOCaug/dataset/val.txt': 1, '*.jpg': 6, '/train.txt': 2, '/val.txt': 2}
    counts |= {'/aug.txt': 2, '/trainaug.txt': 4}
    packed = {'VOCtrainval_11_May_2012': tar_of(voc), 'benchmark': tar_of(sbd, mode='w:gz')}
    dataset = small_set('voc12aug', counts, server, **packed)
    broken = tmp_path / 'data/VOCdevkit/VOC2012/SegmentationClassAug'
    broken.parent.mkdir(parents=True)
    broken.touch()  # instead of a folder
    with pytest.raises(UserError, match='SegmentationClassAug'):
        prepare(Job(dataset, tmp_path / 'data'))
    broken.unlink()
    prepare(Job(dataset, tmp_path / 'data'))
    assert len(server.log) == 2
    make_trainaug(tmp_path / 'made')
    (tmp_path / 'made/VOCdevkit/VOCaug/dataset/img/e.jpg').unlink()
    assert contents(tmp_path / 'data/VOCdevkit') == contents(tmp_path / 'made/VOCdevkit')
    # What SBD was needed for is made: it may go.
    for path in (tmp_path / 'data/VOCdevkit/VOCaug/dataset/cls').iterdir():
        path.unlink()
    server.log.clear()
    prepare(Job(dataset, tmp_path / 'data'))
    assert server.log == []


@pytest.mark.parametrize(('how', 'status'), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_killed_job_continues(server: Server, coco: DataSet, root: Path, tmp_path: Path, how: int, status: int) -> None:
    server.answers[TRAIN] = [Answer(pause=0.1)]
    code = (
        'import sys\n'
        'from mmres2net.data.prepare.job import *\n'
        'from mmres2net.cli import main\n'
        f'DATASETS.update(coco={coco!r})\n'
        f"sys.exit(main(['prepare-data', 'coco', '--root', {str(tmp_path)!r}]))\n"
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
    assert process.returncode == status
    assert ('stopped by' in told, 'Traceback' in told) == (how != signal.SIGKILL, False)
    have = part.stat().st_size
    assert 0 < have < len(server.files[TRAIN])
    prepare(Job(coco, tmp_path))
    check_coco(tmp_path / 'coco', root)
    assert server.ranges(TRAIN) == [None, f'bytes={have}-']
    assert len(server.log) == 4


@pytest.mark.parametrize('name', DATASETS)
def test_rows_of_the_table(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.steps or all(archive.urls for archive in dataset.archives)
    for archive in dataset.archives:
        assert archive.checks
        if not archive.urls:
            continue
        digest, digits = (archive.md5, 32) if archive.md5 else (archive.sha256, 64)
        assert (len(digest), archive.size > 10**6) == (digits, True)
        assert int(digest, 16)
        assert len(set(archive.urls)) == len(archive.urls) >= 2
        for url in archive.urls:
            assert url.startswith(('http://', 'https://'))
            assert url.endswith(f'/{archive.name}')


@pytest.mark.parametrize('name', [name for name, dataset in DATASETS.items() if dataset.config])
def test_shipped_configs_read_what_is_made(name: str) -> None:
    dataset = DATASETS[name]
    cfg = Config.fromfile(config_dir() / dataset.config)
    # One config reads several sets of salient objects, which lie in one folder.
    rows = [row for row in DATASETS.values() if row.data == dataset.data]
    made = [place for row in rows for archive in row.archives for place in archive.places.values()]
    made += [check.source.partition('*')[0] for row in rows for check in row.checks]
    for part in ('train', 'val', 'test'):
        for entry in datasets_of(cfg, part):
            root = Path(entry['data_root'])
            assert root.is_relative_to(Path('data') / dataset.data)
            assert len(rows) > 1 or root == Path('data') / dataset.data
            for path in needed_paths(entry):
                assert any((root / path).is_relative_to(f'data/{place}') for place in made), root / path


def test_data_that_others_laid_out(server: Server, coco: DataSet, root: Path, tmp_path: Path) -> None:
    (tmp_path / 'coco').symlink_to(root)
    prepare(Job(coco, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['coco']
    folder = tmp_path / 'other/coco/val2017'
    folder.mkdir(parents=True)
    for i in range(15):
        (folder / f'own{i}.jpg').touch()
    with pytest.raises(UserError, match=r'coco/val2017/\*\.jpg: 15 of 14 are there'):
        prepare(Job(coco, tmp_path / 'other'))
    assert server.log == []
    more = replace(coco, checks=(*coco.checks, Check('coco/train2017/*.jpg', 61), Check('coco/LICENSE')))
    with pytest.raises(UserError, match=r'(?s)train2017/\*\.jpg: 60 of 61 .*coco/LICENSE is missing or empty'):
        prepare(Job(more, tmp_path / 'third'))


def test_mistakes_of_the_command_line(server: Server, coco: DataSet, tmp_path: Path) -> None:
    (tmp_path / 'busy/downloads').mkdir(parents=True)
    with locked(tmp_path / 'busy/downloads', busy='taken'), pytest.raises(UserError, match='another prepare-data'):
        prepare(Job(coco, tmp_path / 'busy'))
    file = tmp_path / 'file'
    file.touch()
    (tmp_path / 'downloads').touch()
    for flags, named in (
        (['--root', str(tmp_path), '--from', str(tmp_path / 'none')], '--from .*/none'),
        (['--root', str(file)], '--root .*/file'),
        (['--root', str(tmp_path)], 'downloads: File exists'),
    ):
        with pytest.raises(UserError, match=named):
            job.main(['coco', *flags])
    with pytest.raises(SystemExit):
        job.main(['imagenet22k'])
    assert server.log == []

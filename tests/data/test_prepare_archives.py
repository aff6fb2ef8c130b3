"""Unpacking: what belongs there lands whole in its place, everything else stays packed or is refused."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmres2net.data.prepare.archives import unpack
from mmres2net.errors import UserError
from tests.support.archive_server import tar_of, zip_of
from tests.support.folders import contents

FILES = {f'set/{folder}/{i}.jpg': bytes([i]) * (1000 + i) for folder in ('a', 'b') for i in range(5)}
PLACES = {'set/': 'own/place/'}
EXPECTED = {name.replace('set/', 'own/place/'): content for name, content in FILES.items()}
PACKED = {
    'x.zip': zip_of(FILES),
    'x.tar': tar_of(FILES),
    'x.tgz': tar_of({**FILES, 'no_place/1.jpg': b'stays packed'}, mode='w:gz'),
    'dotted.tar': tar_of({f'./{name}': content for name, content in FILES.items()}),
}


def packed(folder: Path, name: str, content: bytes) -> Path:
    path = folder / 'in' / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / 'root').mkdir()
    return tmp_path / 'root'


@pytest.mark.parametrize('name', PACKED)
def test_files_land_in_their_place(tmp_path: Path, root: Path, name: str) -> None:
    path, temporary = packed(tmp_path, name, PACKED[name]), tmp_path / 'unpacking'
    (tmp_path / 'large_disk').mkdir()
    (root / 'own').symlink_to(tmp_path / 'large_disk')  # a folder that the user linked elsewhere is used
    unpack(path, PLACES, root, temporary)
    assert contents(tmp_path / 'large_disk') == {name.removeprefix('own/'): data for name, data in EXPECTED.items()}
    assert path.read_bytes() == PACKED[name]
    assert not temporary.exists()


def special(kind: bytes, target: str = '') -> tarfile.TarInfo:
    info = tarfile.TarInfo('set/evil')
    info.type, info.linkname = kind, target
    return info


def zip_with_link() -> bytes:
    buffer = io.BytesIO(zip_of(FILES))
    with zipfile.ZipFile(buffer, 'a') as archive:
        info = zipfile.ZipInfo('set/evil')
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, '/etc/passwd')
    return buffer.getvalue()


@pytest.mark.parametrize('name', ['set/../../evil', '/evil'])
@pytest.mark.parametrize('pack', [zip_of, tar_of])
def test_a_path_that_leads_outside_is_refused(
    tmp_path: Path, root: Path, pack: Callable[[dict[str, bytes]], bytes], name: str
) -> None:
    path = packed(tmp_path, 'x', pack({**FILES, name: b'!'}))
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError, match=r"holds '.*evil', a path that leads outside"):
        unpack(path, PLACES, root, tmp_path / 'unpacking')
    assert sorted(tmp_path.rglob('*')) == before


LINKS = {
    'symbolic': tar_of(FILES, extra=special(tarfile.SYMTYPE, '../../..')),
    'hard': tar_of(FILES, extra=special(tarfile.LNKTYPE, '/etc/passwd')),
    'fifo': tar_of(FILES, extra=special(tarfile.FIFOTYPE)),
    'device': tar_of(FILES, extra=special(tarfile.CHRTYPE)),
    'symbolic in zip': zip_with_link(),
}


@pytest.mark.parametrize('content', LINKS.values(), ids=LINKS)
def test_links_stay_packed(tmp_path: Path, root: Path, content: bytes) -> None:
    unpack(packed(tmp_path, 'x', content), PLACES, root, tmp_path / 'unpacking')
    assert contents(root) == EXPECTED
    assert not (root / 'own/place/evil').is_symlink()


def test_files_there_stay_and_others_are_kept(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(tmp_path, 'x.zip', PACKED['x.zip'])
    unpack(path, PLACES, root, tmp_path / 'unpacking')
    (root / 'own/place/a/3.jpg').unlink()
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob('*.jpg')}
    unpack(path, PLACES, root, tmp_path / 'unpacking')
    assert contents(root) == EXPECTED
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    (root / 'own/place/a/0.jpg').write_bytes(b'mine')
    unpack(path, PLACES, root, tmp_path / 'unpacking')
    assert contents(root) == {**EXPECTED, 'own/place/a/0.jpg.old': b'mine'}
    assert '0.jpg.old' in capsys.readouterr().err


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


DAMAGED = {
    **{f'half {name}': PACKED[name][: len(PACKED[name]) // 2] for name in ('x.zip', 'x.tar', 'x.tgz')},
    'flipped bits in the first member': flipped(PACKED['x.zip'], 45),
}


@pytest.mark.parametrize('content', DAMAGED.values(), ids=DAMAGED)
def test_archive_that_cannot_be_unpacked_is_one_error(tmp_path: Path, root: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=f'{tmp_path}/in/x cannot be unpacked'):
        unpack(packed(tmp_path, 'x', content), PLACES, root, tmp_path / 'unpacking')
    assert contents(root) == {}
    assert not (tmp_path / 'unpacking').exists()

"""Atomic writes, locks and checks of outputs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmres2net.errors import UserError
from mmres2net.files import atomic_path, locked, require_space, writable_dir, writable_file, write_atomic


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / 'a.json'
    write_atomic(target, 'old')
    with pytest.raises(ZeroDivisionError), atomic_path(target) as path:
        path.write_text(f'half {1 / 0}')
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {'a.json': 'old'}
    write_atomic(target, b'new')
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {'a.json': 'new'}


def test_a_killed_writer_leaves_nothing_for_ever(tmp_path: Path) -> None:
    code = 'import os, sys\nfrom mmres2net.files import atomic_path\nwith atomic_path(sys.argv[1]) as path:\n'
    code += '    path.write_text("half of a long text")\n    os.kill(os.getpid(), 9)\n'
    assert subprocess.run([sys.executable, '-c', code, tmp_path / 'a'], check=False).returncode == -9
    assert not (tmp_path / 'a').exists()
    write_atomic(tmp_path / 'a', 'whole')
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {'a': 'whole'}


def test_links_are_followed_and_devices_written(tmp_path: Path) -> None:
    (tmp_path / 'there').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'there' / 'a')
    write_atomic(tmp_path / 'link', 'x')
    assert (tmp_path / 'there' / 'a').read_text() == 'x'
    assert (tmp_path / 'link').is_symlink()
    write_atomic('/dev/null', 'x')
    assert Path('/dev/null').is_char_device()
    (tmp_path / 'plain').touch()
    assert (tmp_path / 'link').stat().st_mode == (tmp_path / 'plain').stat().st_mode  # as any new file has it


def test_lock_is_exclusive_and_leaves_no_file(tmp_path: Path) -> None:
    with locked(tmp_path, 'in use'):
        with pytest.raises(UserError, match='in use'), locked(tmp_path, 'in use'):
            pass
        assert (tmp_path / '.lock').exists()
    with locked(tmp_path, 'in use'):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_waits_for_another_process(tmp_path: Path) -> None:
    code = 'import sys, pathlib\nfrom mmres2net.files import locked\n'
    code += 'with locked(pathlib.Path(sys.argv[1]), "waiting", wait=True):\n    print(open(sys.argv[2]).read())\n'
    with locked(tmp_path, 'in use'):
        command = [sys.executable, '-c', code, tmp_path, tmp_path / 'content']
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        assert child.stderr.readline().strip() == 'waiting'
        (tmp_path / 'content').write_text('written before the lock was free')
    assert 'written before' in child.communicate(timeout=60)[0]


@pytest.mark.parametrize('place', ['/proc/x', '/proc/x/y', '/dev/null', '/dev/null/x'])
def test_folders_that_cannot_be_written_are_refused(place: str) -> None:
    for check in (writable_dir, lambda path, option: writable_file(f'{path}/f.json', option)):
        with pytest.raises(UserError, match=f'--out.*{place}'):
            check(place, '--out')


def test_outputs_that_can_be_written(tmp_path: Path) -> None:
    assert writable_dir(tmp_path / 'a' / 'b', '--out').is_dir()
    assert writable_file(tmp_path / 'c' / 'd.json', '--json') == tmp_path / 'c' / 'd.json'
    assert list((tmp_path / 'a' / 'b').iterdir()) == []
    with pytest.raises(UserError, match='--json'):
        writable_file(tmp_path, '--json')
    assert writable_file('/dev/null', '--json') == Path('/dev/null')
    assert os.listdir(tmp_path / 'c') == []


def test_needs_on_one_disk_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(100, 0, 100))
    require_space({tmp_path / 'a': 60, tmp_path / 'b' / 'c': 40})
    with pytest.raises(UserError, match='101 bytes'):
        require_space({tmp_path / 'a': 60, tmp_path / 'b' / 'c': 41})

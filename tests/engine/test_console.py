"""The console of whole runs in processes of their own, with and without a terminal: few lines, nothing lost."""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.engine.demo import CONFIG, SMALL

NOISE = ('OneDL', 'System environment', 'Hooks will be executed', 'default_scope', 'Warning')


def command(verb: str, *args: str | Path) -> list[str]:
    return [sys.executable, '-m', 'mmres2net', verb, CONFIG, *map(str, args)]


def before_progress(lines: list[str]) -> list[str]:
    return lines[: next(i for i, line in enumerate(lines) if 'left 0:' in line)]


def test_without_a_terminal(shapes: Path, tmp_path: Path) -> None:
    where = ('--data', shapes, '--work-dir', tmp_path)
    small = ('--cfg-options', *SMALL, 'train_cfg.max_epochs=1', 'default_hooks.checkpoint.save_best=auto')
    done = subprocess.run(command('train', *where, *small), text=True, capture_output=True, check=True)
    lines = done.stdout.splitlines()
    assert len(before_progress((done.stderr + done.stdout).splitlines())) <= 25
    assert len(lines) <= 60
    assert [word for word in NOISE if word in done.stdout + done.stderr] == []
    for text in ('Res2Net', '12 train images', '1 of 3 steps', 'loss ', 'memory', 'coco/bbox_mAP ', 'results.csv'):
        assert text in done.stdout, text
    assert f'best checkpoint: {tmp_path}' in done.stdout
    (log,) = tmp_path.glob('*/*.log')
    assert [word for word in (*NOISE[:-1], 'loss_rpn_cls') if word not in log.read_text()] == []
    args = command('test', tmp_path / 'epoch_1.pth', *where, '--log-style', 'plain', '--cfg-options', *SMALL)
    tested = subprocess.run(args, text=True, capture_output=True, check=True)
    assert len(before_progress((tested.stderr + tested.stdout).splitlines())) <= 25
    assert ('coco/bbox_mAP ' in tested.stdout, 'OneDL' in tested.stdout) == (True, False)


def test_on_a_terminal(shapes: Path, tmp_path: Path) -> None:
    small = ('--cfg-options', *SMALL, 'train_cfg.max_epochs=1')
    ours, theirs = pty.openpty()
    args = command('train', '--data', shapes, '--work-dir', tmp_path, *small)
    environment = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '100'}
    process = subprocess.Popen(args, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = bytearray()
    with suppress(OSError):  # the end of a terminal on Linux
        while block := os.read(ours, 4096):
            shown += block
    assert process.wait() == 0
    text = shown.decode()
    assert ('\x1b[2K' in text, 'step 1/3' in text, 'coco/bbox_mAP ' in text) == (True, True, True)
    assert [word for word in NOISE if word in text] == []

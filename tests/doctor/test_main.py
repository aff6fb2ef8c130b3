"""The command as a user meets it: in a whole environment, and in broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmres2net.data.layout import PARTS, datasets_of
from mmres2net.doctor import main as doctor
from mmres2net.doctor.probes import _dataset_base
from mmres2net.doctor.result import Result
from mmres2net.errors import UserError
from mmres2net.paths import config_dir, list_configs

from .conftest import Module

ROOT = Path(__file__).resolve().parents[2]


def run(*args: str, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script of the checkout, with a folder of made-up packages in front."""
    paths = [str(path) for path in (site, ROOT) if path]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, str(ROOT / 'tools/doctor.py'), *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_here_everything_is_fine(tmp_path: Path) -> None:
    done = run('--json', 'report.json', '--require', 'mmdet', 'mmseg', 'mmpretrain', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    record = json.loads((tmp_path / 'report.json').read_text())
    assert record['ok'] is True
    assert 'fail' not in record['counts']
    found = {row['name']: row for row in record['results']}
    for name in ('torch', 'torchvision', 'numpy', 'OpenCV', 'mmcv ops', 'pycocotools', 'faster-coco-eval', 'registry'):
        assert found[name]['status'] == 'ok', found[name]
    assert 'right on the CPU' in found['mmcv ops']['detail']
    assert found['data/coco/']['status'] == 'note'
    assert found['data/coco/']['remedy'].startswith('mmres2net prepare-data coco, ')
    assert found['data/VOCdevkit/VOC2012/']['remedy'].startswith('mmres2net prepare-data voc12aug, ')
    assert found['data/shapes/']['status'] == 'ok'
    lines = done.stdout.splitlines()
    details = [found[name]['detail'] for name in ('torch', 'mmcv ops', 'disk')]
    starts = {line.index(detail) for detail in details for line in lines if line.endswith(detail)}
    assert len(starts) == 1  # the details stand in one column
    assert lines[-1].endswith('fine')


def test_a_torch_that_crashes(tmp_path: Path, module: Module, site: Path) -> None:
    module('torch', 'import os\nos.abort()\n')
    done = run(cwd=tmp_path, site=site)
    assert (done.returncode, done.stderr) == (1, '')
    lines = done.stdout.splitlines()
    index = next(index for index, line in enumerate(lines) if line.startswith('  FAIL  torch '))
    assert 'the interpreter crashed with SIGABRT at' in lines[index]
    assert lines[index + 1].startswith('        -> ')
    assert any(line.startswith('  skip  mmcv ops ') and line.endswith('it needs torch, see there') for line in lines)
    assert any(line.startswith('  ok    pycocotools ') for line in lines)
    assert '1 failed' in lines[-1]


def made(status: str, remedy: str = '') -> dict[str, list[Result]]:
    return {'packages': [Result('one', 'ok', 'good'), Result('longer', status, 'bad', remedy)]}


@pytest.mark.parametrize(('status', 'code'), [('ok', 0), ('note', 0), ('warn', 0), ('skip', 0), ('fail', 1)])
def test_exit_status_and_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    monkeypatch.setattr(doctor, 'sections', lambda required: made(status, 'mend it'))
    assert doctor.main([]) == code
    label = {'fail': 'FAIL'}.get(status, status)
    text = f'packages:\n  ok    one     good\n  {label:<4}  longer  bad\n        -> mend it\n\n'
    assert capsys.readouterr().out.startswith(text)


def test_json_on_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, 'sections', lambda required: made('fail', 'mend it'))
    assert doctor.main(['--json']) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record['ok'], record['counts']) == (False, {'ok': 1, 'fail': 1})
    row = {'section': 'packages', 'name': 'longer', 'status': 'fail', 'detail': 'bad', 'remedy': 'mend it'}
    assert record['results'][1] == row


def test_a_file_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, 'sections', lambda required: made('ok'))
    with pytest.raises(UserError, match=r'--json .*absent.*does not exist'):
        doctor.main(['--json', str(tmp_path / 'absent' / 'x.json')])
    with pytest.raises(UserError, match='Is a directory'):
        doctor.main(['--json', str(tmp_path)])


def test_required_things_reach_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[frozenset[str]] = []
    monkeypatch.setattr(doctor, 'sections', lambda required: seen.append(required) or made('ok'))
    doctor.main(['--require', 'mmdet', 'cuda'])
    assert seen == [frozenset({'mmdet', 'cuda'})]
    with pytest.raises(SystemExit):
        doctor.main(['--require', 'mmcls'])


def test_one_config_speaks_for_its_group() -> None:
    from mmengine.config import Config

    roots: dict[str, set[tuple[str, ...]]] = {}
    for name in list_configs()[::3]:
        cfg = Config.fromfile(config_dir() / name)
        found = tuple(sorted({entry['data_root'] for part in PARTS for entry in datasets_of(cfg, part)}))
        assert found, name
        roots.setdefault(_dataset_base(config_dir() / name), set()).add(found)
    assert '' not in roots
    assert [base for base, found in roots.items() if len(found) > 1] == []

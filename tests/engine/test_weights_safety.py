"""A hostile checkpoint on every way into a run: refused by name, and its program not run."""

import os
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import _load_checkpoint

from mmres2net.cli import main
from mmres2net.engine.weights import FORCE, FORCE_NOT, safe_loading
from mmres2net.errors import UserError
from tests.engine.demo import CONFIG, SMALL
from tests.engine.test_training import train
from tests.support.archive_server import serving
from tests.support.cli import run_cli
from tests.support.hostile import hostile, works

pytestmark = pytest.mark.usefixtures('hub')
STATE = {'backbone.a': torch.ones(2), 'head.b': torch.ones(1)}
KINDS = ('Pretrained', 'mmengine.Pretrained', 'mmres2net.Pretrained')


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / 'marker'


@pytest.fixture
def bad(tmp_path: Path, marker: Path) -> str:
    path = hostile(tmp_path / 'epoch_1.pth', marker)
    works(path, marker)
    return str(path)


def run(verb: str, shapes: Path, tmp_path: Path, *flags: str, options: tuple[str, ...] = ()) -> int:
    where = ['--data', str(shapes), '--work-dir', str(tmp_path / 'run')]
    return main([verb, CONFIG, *flags, *where, '--cfg-options', *SMALL, *options])


@pytest.mark.parametrize('way', ['--resume', 'last_checkpoint', 'test', 'load_from', *KINDS])
def test_every_way_into_a_run(shapes, tmp_path, bad, marker, capsys, way) -> None:
    (tmp_path / 'run').mkdir()
    start = 'model.backbone.init_cfg'
    verb = 'test' if way == 'test' else 'train'
    flags = {'--resume': ('--resume', bad), 'last_checkpoint': ('--resume',), 'test': (bad,)}.get(way, ())
    options = {'load_from': (f'load_from={bad}',)}.get(way, ())
    if way in KINDS:
        options = (f'{start}.type={way}', f'{start}.checkpoint={bad}')
    if way == 'last_checkpoint':
        (tmp_path / 'run' / 'last_checkpoint').write_text(bad)
    assert run(verb, shapes, tmp_path, *flags, options=options) == 2
    text = capsys.readouterr().err
    assert 'posix.system' in text
    assert (f'{start}.checkpoint' if way in KINDS else '--resume' if flags[:1] == ('--resume',) else bad) in text
    assert not marker.exists()
    if way == 'test':  # with the flag it is read, and does not fit
        assert run(verb, shapes, tmp_path, *flags, '--allow-unsafe-checkpoint') == 2
        assert marker.exists()


@pytest.mark.parametrize('name', ['FILE', 'URL', 'openmmlab://bad_url'])
def test_every_scheme_of_mmengine(tmp_path, bad, marker, name, monkeypatch) -> None:
    with serving() as server:
        server.files['bad.pth'] = Path(bad).read_bytes()
        url = server.url('bad.pth')
        monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
        (tmp_path / 'open_mmlab.json').write_text(f'{{"bad_url": "{url}"}}')
        with safe_loading(), pytest.raises(UserError, match=r'posix\.system'):
            CheckpointLoader.load_checkpoint({'FILE': bad, 'URL': url}.get(name, name))
    assert not marker.exists()


def test_no_scheme_is_left_to_mmengine() -> None:
    before = dict(CheckpointLoader._schemes)
    with safe_loading():
        assert {loader.__module__ for loader in CheckpointLoader._schemes.values()} == {'mmres2net.engine.weights'}
        for name in ('s3://bucket/file.pth', 'petrel://bucket/file.pth', 'pavi://model'):
            with pytest.raises(UserError, match=name):
                CheckpointLoader.load_checkpoint(name)
    assert before == CheckpointLoader._schemes


def test_plain_checkpoints_are_loaded_and_of_mmcls_the_backbone_alone(tmp_path, monkeypatch) -> None:
    torch.save({'state_dict': STATE}, tmp_path / 'net.pth')
    monkeypatch.setattr('mmres2net.engine.weights.fetch_checkpoint', lambda _: tmp_path / 'net.pth')
    with safe_loading():
        plain = _load_checkpoint(str(tmp_path / 'net.pth'), map_location='meta')
        assert {n: value.device.type for n, value in plain['state_dict'].items()} == dict.fromkeys(STATE, 'cpu')
        assert list(_load_checkpoint('mmcls://vgg11')['state_dict']) == ['a']
        torch.save({'model': STATE, 'epoch': 3}, tmp_path / 'net.pth')  # as other tools name them
        assert _load_checkpoint(str(tmp_path / 'net.pth'))['state_dict'].keys() == STATE.keys()


def test_code_that_calls_torch_itself(bad: str, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    with safe_loading(), pytest.raises(UnpicklingError, match='Weights only load failed'):
        torch.load(bad, weights_only=False)
    assert not marker.exists()
    assert FORCE not in os.environ
    monkeypatch.setenv(FORCE_NOT, '1')
    with pytest.raises(UserError, match=f'{FORCE_NOT} is set'), safe_loading():
        pass


@pytest.fixture
def trained(folder: Path) -> Path:
    assert train('--work-dir', 'own', train_cfg__max_epochs=1).status == 0
    return folder


# Another run's best checkpoint, seen from the folder of the test; more spellings are in tests/weights/test_reading.py
NAMES = ('other/{0}', '{1}/other/{0}', '{1}/own/link/{0}', '{1}/own/best_link.pth', '{1}/own', '.')


@pytest.mark.parametrize('name', NAMES)
def test_resume_runs_and_deletes_nothing(trained: Path, name: str) -> None:
    """MMEngine itself would run meta.config, and delete best_ckpt when a better checkpoint comes."""
    best = trained / 'other' / 'best_score_epoch_1.pth'
    best.parent.mkdir()
    best.write_text('precious')
    (trained / 'own' / 'link').symlink_to(best.parent)
    (trained / 'own' / 'best_link.pth').symlink_to(best)
    content = torch.load('own/epoch_1.pth', weights_only=False)
    content['meta']['config'] = f"import os; os.system('touch {trained}/marker')"
    keys = ('best_ckpt', 'best_ckpt_score', 'last_ckpt', 'another')
    facts = {'best_score': -1.0, 'keep_ckpt_ids': ['../../other/best_score_epoch_1']}
    content['message_hub']['runtime_info'] |= {**dict.fromkeys(keys, name.format(best.name, trained)), **facts}
    content['message_hub']['resumed_keys'] |= dict.fromkeys([*keys, 'keep_ckpt_ids'], True)
    torch.save(content, 'command.pth')
    before = {path for path in trained.rglob('*') if path.is_file()}
    options = {'default_hooks__checkpoint__max_keep_ckpts': 1, 'default_hooks__checkpoint__filename_tmpl': '{}.pth'}
    done = train('--resume', 'command.pth', '--work-dir', 'own', train_cfg__max_epochs=3, **options)
    assert done.status == 0
    assert before <= {path for path in trained.rglob('*') if path.is_file()}
    assert best.read_text() == 'precious'
    assert not (trained / 'marker').exists()


def test_own_best_checkpoint_is_replaced_and_no_other(trained: Path) -> None:
    better = {'val_evaluator__scores': '[2.0]', 'train_cfg__max_epochs': 2}
    assert train('--resume', 'own/epoch_1.pth', '--work-dir', 'second', **better).status == 0
    assert [path.name for path in (trained / 'own').glob('best_*.pth')] == ['best_score_epoch_1.pth']
    assert [path.name for path in (trained / 'second').glob('best_*.pth')] == ['best_score_epoch_2.pth']
    assert train('--resume', '--work-dir', 'own', **better).status == 0
    assert [path.name for path in (trained / 'own').glob('best_*.pth')] == ['best_score_epoch_2.pth']


BOMB = 'test tiny.py bomb.pth', 'train tiny.py --resume bomb.pth', 'train tiny.py --cfg-options load_from=bomb.pth'


def test_diverged_runs_and_metadata_of_a_bomb(trained: Path) -> None:
    for part, key in (('state_dict', 'layer.bias'), ('optimizer', 'param_groups')):
        content = torch.load('own/epoch_1.pth', weights_only=False)
        if part == 'optimizer':
            content[part][key][0]['lr'] = float('inf')
        else:
            content[part][key] *= float('nan')
        torch.save(content, 'diverged.pth')
        done = train('--resume', 'diverged.pth', '--work-dir', 'own', train_cfg__max_epochs=2)
        assert (done.status, 'diverged.pth' in done.err) == (2, True)
    leaf: object = 1
    for _ in range(10):
        leaf = [leaf] * 10
    content = torch.load('own/epoch_1.pth', weights_only=False)
    content['meta']['dataset_meta'] = {'classes': leaf}
    torch.save(content, 'bomb.pth')
    for command in BOMB:
        done = run_cli(*command.split())
        assert (done.status, 'bomb.pth' in done.err) == (2, True)

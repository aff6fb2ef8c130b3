"""``--resume``: the newest checkpoint that can be read, a refusal of the others, and what it cannot keep."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmres2net.engine.embedded import saved_config
from mmres2net.engine.resume import changes_since, checkpoints_in, newest_start, read_start
from mmres2net.errors import UserError
from tests.engine.test_training import train
from tests.engine.tiny import write_config
from tests.support.cli import run_cli
from tests.support.hostile import hostile

WORK_DIR = Path('work_dirs/tiny')


@pytest.fixture(scope='module')
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('resume')
    assert run_cli('train', write_config(folder), cwd=folder).status == 0
    return folder / WORK_DIR


@pytest.fixture
def trained(folder: Path, two_epochs: Path) -> Path:
    shutil.copytree(two_epochs, folder / WORK_DIR)
    return folder / WORK_DIR


def epoch_resumed(done_out: str) -> int:
    return int(done_out.split('resumed epoch: ')[1].split(',')[0])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


POINTERS: dict[str, Callable[[Path], Any]] = {
    'missing': lambda pointer: pointer.unlink(),
    'cut': lambda pointer: pointer.write_text(pointer.read_text()[:-7]),
    'of the old place, with a new line': lambda pointer: pointer.write_text('/old/place/epoch_2.pth\n'),
    'of another place': lambda pointer: pointer.write_text('/old/place/epoch_9.pth'),
    'binary': lambda pointer: pointer.write_bytes(b'\xff\xfe\0'),
    'a folder': lambda pointer: (pointer.unlink(), pointer.mkdir()),
    'a device': lambda pointer: pointer.write_text('/dev/zero'),
}


@pytest.mark.parametrize('kind', POINTERS)
def test_the_newest_checkpoint_is_found_whatever_last_checkpoint_is(trained: Path, kind: str) -> None:
    POINTERS[kind](trained / 'last_checkpoint')
    start = newest_start(trained)
    assert (start.path, start.meta['epoch']) == (trained / 'epoch_2.pth', 2)


def test_numbers_are_compared_as_numbers_and_kinds_by_time(tmp_path: Path) -> None:
    for name in ('epoch_9.pth', 'epoch_10.pth', 'epoch_x.pth', 'best_score_epoch_11.pth', 'other.pth'):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints_in(tmp_path)] == ['epoch_10.pth', 'epoch_9.pth']


def test_damaged_and_hostile_checkpoints_are_passed_over_and_named(trained: Path) -> None:
    hostile(trained / 'epoch_2.pth', trained / 'marker')
    assert 'checksum' in ' '.join(newest_start(trained).notes)
    (trained / 'epoch_2.pth.sha256').unlink()
    start = newest_start(trained)
    assert (start.path, 'posix.system' in ' '.join(start.notes)) == (trained / 'epoch_1.pth', True)
    assert not (trained / 'marker').exists()
    cut(trained / 'epoch_2.pth')
    done = train('--resume')
    assert (done.status, epoch_resumed(done.out)) == (0, 1)
    assert f'{WORK_DIR}/epoch_2.pth' in done.out
    assert newest_start(trained).path.name == 'epoch_2.pth'  # it was written again
    for path in trained.glob('epoch_*.pth'):
        cut(path)
    refused = train('--resume')
    assert (refused.status, 'epoch_1.pth' in refused.err, 'epoch_2.pth' in refused.err) == (2, True, True)


def test_a_finished_run_is_said_to_be_finished_and_the_setting_of_a_config_means_the_same(trained: Path) -> None:
    before = (trained / 'epoch_2.pth').read_bytes()
    done = train('--resume')
    assert (done.status, '2 of 2 epochs' in done.out, 'last evaluation' in done.out) == (0, True, False)
    assert (trained / 'epoch_2.pth').read_bytes() == before
    done = train(resume=True, train_cfg__max_epochs=3)
    assert (done.status, epoch_resumed(done.out)) == (0, 2)
    (trained / 'epoch_3.pth').unlink()
    named = train(resume=True, load_from=f'{WORK_DIR}/epoch_1.pth', train_cfg__max_epochs=3)
    assert (named.status, epoch_resumed(named.out)) == (0, 1)


@pytest.mark.parametrize(('part', 'value'), [
    ('meta', None), ('message_hub', None), ('state_dict', None), ('meta', []), ('message_hub', {}),
    ('meta', dict(epoch='1', iter=4)), ('meta', dict(epoch=1, iter=-4)), ('meta', dict(epoch=1, iter=4, seed='text')),
    ('message_hub', dict(log_scalars={}, runtime_info=1, resumed_keys={})),
])  # fmt: skip
def test_checkpoints_that_are_none_of_mmengine(trained: Path, part: str, value: Any) -> None:
    content = torch.load(trained / 'epoch_1.pth', weights_only=False)
    content[part] = value
    torch.save({key: value for key, value in content.items() if value is not None}, 'other.pth')
    with pytest.raises(UserError, match=part):
        read_start(Path('other.pth'))


def test_checkpoints_that_do_not_fit_the_run(trained: Path) -> None:
    other = train('--resume', model__width=3, train_dataloader__dataset__width=3, train_cfg__max_epochs=3)
    assert (other.status, 'layer.weight' in other.err) == (2, True)
    content = torch.load(trained / 'epoch_1.pth', weights_only=False)
    content['optimizer']['param_groups'] = []
    torch.save(content, 'groups.pth')
    refused = train('--resume', 'groups.pth')
    assert (refused.status, refused.err.count('error: ')) == (2, 1)


def test_what_cannot_be_kept_is_said(trained: Path) -> None:
    shutil.copytree(trained, 'again')
    done = train('--resume', train_cfg__max_epochs=3, train_dataloader__batch_size=4, optim_wrapper__optimizer__lr=0.5)
    assert done.status == 0
    for text in ('a step had 2 images', 'has 4 now', 'optim_wrapper.optimizer of this config has no effect'):
        assert text in done.out
    assert 'SGD with lr=0.01, 8 steps are done' in done.out  # that of the checkpoint
    assert 'loop_stage' not in done.out + done.err  # of the run that had ended
    assert 'left 0:00:0' in done.out.split('epoch 3/3')[1]  # with fewer steps an epoch than before
    start = read_start(Path('again/epoch_2.pth'))
    cfg = Config.fromfile('tiny.py')
    assert changes_since(start, cfg, 1) == []
    assert '8 now' in ' '.join(changes_since(start, cfg, 4))
    cfg.train_dataloader.batch_size = 1
    assert 'accumulative_counts=2' in ' '.join(changes_since(start, cfg, 1))
    assert 'momentum' in ' '.join(changes_since(start._replace(parts=()), cfg, 1))


def test_saved_config_is_parsed_and_not_run(tmp_path: Path) -> None:
    text = "a = dict(b=[1, (2, None)], c={'d': -1.5}, e=dict({'f.g': inf}))\nimport os\n"
    text += f"os.system('touch {tmp_path}/marker')\n"
    assert saved_config(text) == dict(a=dict(b=[1, (2, None)], c=dict(d=-1.5), e={'f.g': float('inf')}))
    for other in (f"a = __import__('os').system('touch {tmp_path}/marker')", 'a = (', None, 'a = ' + '[' * 100_000):
        assert saved_config(other) == {}
    assert not (tmp_path / 'marker').exists()

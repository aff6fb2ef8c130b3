"""Whole runs of a tiny model: how they stop, what they say at the end, what a work dir allows."""

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mmres2net.engine.build import building
from mmres2net.engine.resume import held
from mmres2net.errors import Interrupted
from mmres2net.signals import interruptible
from tests.engine.tiny import write_config
from tests.support.cli import CliResult, run_cli

NUMBERS = itertools.count()


def train(*flags: str, **options: Any) -> CliResult:
    """Run the training of ``tiny.py``; options are written with __ for dots."""
    # MMEngine shares the records of runs that have one name and begin in one second.
    options['experiment_name'] = f'run{next(NUMBERS)}'
    settings = (f'{key.replace("__", ".")}={value}' for key, value in options.items())
    return run_cli('train', 'tiny.py', *flags, '--cfg-options', *settings)


def saved(folder: Path = Path('work_dirs/tiny')) -> set[str]:
    return {path.name for path in folder.glob('*.pth')}


def test_weights_of_nan_stop_a_run_at_once_and_are_not_saved(folder: Path) -> None:
    done = train(model__nan_from=6, model__spoil=True)
    assert (done.status, 'step 6' in done.err, 'Traceback' in done.err) == (1, True, False)
    assert saved() == {'epoch_1.pth', 'best_score_epoch_1.pth'}


def test_finite_weights_have_patience(folder: Path) -> None:
    few = train('--work-dir', 'few', model__nan_from=2, model__nan_steps=2, default_hooks__finite_loss__patience=3)
    many = train('--work-dir', 'many', model__nan_from=2, model__nan_steps=3, default_hooks__finite_loss__patience=3)
    assert (few.status, many.status) == (0, 1)
    assert all(text in many.err for text in ('since step 2', 'step 4', 'finite_loss.patience'))
    assert saved(Path('many')) == set()
    assert train('--work-dir', 'short', model__nan_from=1, train_cfg__max_epochs=1).status == 1  # nothing was learned
    assert saved(Path('short')) == set()


def test_nan_is_never_the_best_score(folder: Path) -> None:
    done = train(train_cfg__max_epochs=3, val_evaluator__scores='[nan,0.5,nan]')
    table = done.out.split('last evaluation')[1].split()
    assert (done.status, table[:2]) == (0, ['score', 'nan'])
    assert {name for name in saved() if 'best' in name} == {'best_score_epoch_2.pth'}
    assert 'best_score_epoch_2.pth (score 0.500)' in done.out


def test_a_run_that_breaks_off_is_one_error_and_keeps_its_traceback(folder: Path) -> None:
    done = train(model__raise_at=6)
    assert (done.status, done.err.count('error: '), 'step 6: the fault that was' in done.err) == (1, 1, True)
    assert 'in forward' in Path('work_dirs/tiny/traceback.txt').read_text()
    write_config(folder, "model['words'] = 'Expected more than 1 value per channel when training'")
    done = train('--overwrite', model__raise_at=1)
    assert (done.status, 'drop_last' in done.err) == (1, True)  # the remedy


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('epochs', [1, 2])
def test_a_signal_ends_a_run_in_one_line(folder: Path, epochs: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    done = train(model__signal_at=4 * epochs - 3)
    assert done.status == 128 + signal.SIGTERM
    (line,) = done.err.strip().splitlines()[-1:]
    assert ('SIGTERM' in line, '--resume' in line, 'Traceback' in done.err) == (True, True, False)
    assert 'last.pth' in saved()
    assert signal.getsignal(signal.SIGTERM) is before
    assert train('--resume').status == 0
    assert 'epoch_2.pth' in saved()
    dropped = train('--overwrite', model__signal_at=2, model__in_destructor=True)  # Python drops what is raised there
    assert (dropped.status, 'step 2' in dropped.err) == (128 + signal.SIGTERM, True)


def test_a_stop_that_a_library_turns_into_an_error_is_a_stop() -> None:
    @interruptible()
    @building('it')
    def stopped() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise SyntaxError('wrong') from None

    with pytest.raises(Interrupted):
        stopped()


def test_a_worker_that_cannot_read_a_sample(folder: Path) -> None:
    done = train('--overwrite', train_dataloader__dataset__broken=3, train_dataloader__num_workers=1)
    assert (done.status, 'the sample cannot be read' in done.err) == (1, True)
    first = train('--overwrite', train_dataloader__dataset__broken=0)
    assert (first.status, 'train' in first.err) == (2, True)


def test_checkpoints_of_an_earlier_run_are_not_overwritten(folder: Path) -> None:
    assert train(train_cfg__max_epochs=3).status == 0
    before = Path('work_dirs/tiny/epoch_1.pth').read_bytes()
    refused = train()
    assert refused.status == 2
    assert all(way in refused.err for way in ('--resume', '--work-dir', '--overwrite'))
    torch.save({'other': torch.ones(2)}, 'other.pth')
    assert train('--overwrite', load_from='other.pth').status == 2  # found when all else is built
    assert Path('work_dirs/tiny/epoch_1.pth').read_bytes() == before
    assert train('--overwrite', train_cfg__max_epochs=1).status == 0
    assert saved() == {'epoch_1.pth', 'best_score_epoch_1.pth'}
    assert train('--overwrite', '--resume').status == 2
    again = train('--overwrite', resume=True, train_cfg__max_epochs=1)
    assert (again.status, 'resumed epoch' in again.out) == (0, False)
    Path('work_dirs/tiny/epoch_1.pth').unlink()
    assert train().status == 2  # the best one is left


def test_two_runs_in_one_work_dir(folder: Path) -> None:
    work_dir = folder / 'work_dirs/tiny'
    work_dir.mkdir(parents=True)
    with held(work_dir):
        done = train()
    assert (done.status, 'another run' in done.err, saved()) == (2, True, set())
    assert train().status == 0
    assert not (work_dir / '.lock').exists()


@pytest.mark.parametrize('place', ['tiny.py/below', '/proc/x'])
def test_work_dirs_that_cannot_be_written(folder: Path, place: str) -> None:
    assert train('--work-dir', place).status == 2
    out = run_cli('test', 'tiny.py', 'absent.pth', '--out', f'{place}/x.pkl')
    assert (out.status, '--out' in out.err) == (2, True)


def test_testing_needs_every_weight_of_the_model_and_no_other(folder: Path) -> None:
    assert train(train_cfg__max_epochs=1).status == 0
    state = torch.load('work_dirs/tiny/epoch_1.pth', weights_only=False)['state_dict']
    torch.save({'state_dict': {f'module.{name}': value for name, value in state.items()}}, 'parallel.pth')
    torch.save({'state_dict': {'layer.weight': state['layer.weight']}}, 'less.pth')
    torch.save({'state_dict': {**state, 'more.weight': torch.ones(1)}}, 'more.pth')
    torch.save({'state_dict': {**state, 'layer.bias': torch.ones(3)}}, 'other.pth')
    assert run_cli('test', 'tiny.py', 'parallel.pth').status == 0  # MMEngine strips the prefix of several processes
    for name, weight in (('less', 'layer.bias'), ('more', 'more.weight'), ('other', 'layer.bias')):
        done = run_cli('test', 'tiny.py', f'{name}.pth')
        assert (done.status, weight in done.err, f'{name}.pth' in done.err) == (2, True, True)

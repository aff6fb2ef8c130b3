"""Checkpoints on disks that are full, in work dirs that were moved, and what is drawn for which sample."""

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.fileio import LocalBackend
from torch.utils.data import BatchSampler

from mmres2net.engine.exact import ExactBatches, seeded
from mmres2net.engine.resume import checkpoints_in, newest_start
from tests.engine.test_training import saved, train
from tests.engine.tiny import RunNumbers

WORK_DIR = Path('work_dirs/tiny')


def fill_disk(monkeypatch: pytest.MonkeyPatch, part: str, *, after: int = 0) -> None:
    """Let files whose names hold ``part`` be written in part only, after some that are written whole."""
    put, count = LocalBackend.put, iter(range(10**6))

    def short(self: LocalBackend, obj: bytes, filepath: str) -> None:
        if part not in str(filepath) or next(count) < after:
            put(self, obj, filepath)
            return
        Path(filepath).write_bytes(obj[:1000])
        raise OSError(errno.ENOSPC, 'No space left on device', filepath)

    monkeypatch.setattr(LocalBackend, 'put', short)


def hidden() -> list[str]:
    return [path.name for path in WORK_DIR.glob('.*') if path.name != '.lock']


def test_files_beside_a_checkpoint(folder: Path) -> None:
    assert train('--checkpoint-every', '3it', train_cfg__max_epochs=1).status == 0
    assert saved() == {'epoch_1.pth', 'best_score_epoch_1.pth'}  # last.pth was replaced
    digest, name = (WORK_DIR / 'epoch_1.pth.sha256').read_text().split()[:2]
    assert (digest, name) == (hashlib.sha256((WORK_DIR / name).read_bytes()).hexdigest(), 'epoch_1.pth')
    for old in ('.epoch_2.pth.part', '.last_checkpoint.9.part', 'epoch_7.pth.sha256'):
        (WORK_DIR / old).write_text('left by a killed run')
    options = dict(train_cfg__max_epochs=3, default_hooks__checkpoint__interval=9)
    done = train('--resume', '--checkpoint-every', '3it', **options)
    assert (done.status, hidden(), (WORK_DIR / 'epoch_7.pth.sha256').exists()) == (0, [], False)
    assert all(text in done.out for text in ('best checkpoint: ', 'tiny/epoch_3.pth; before it: epoch_1.pth'))


@pytest.mark.parametrize('text', ['0it', '5', '-1it', '1h', '2.5min'])
def test_intervals_that_are_none(folder: Path, text: str) -> None:
    assert train('--checkpoint-every', text).status == 2


def test_a_work_dir_that_was_moved_without_its_pointer(folder: Path) -> None:
    stopped = train('--max-minutes', '1e-9')
    while not (WORK_DIR / 'epoch_1.pth').exists() or not (WORK_DIR / 'last.pth').exists():
        stopped = train('--resume', '--max-minutes', '1e-9')
    assert stopped.status == 75
    WORK_DIR.rename('moved')
    Path('moved/last_checkpoint').unlink()
    for path in Path('moved').glob('*.pth'):
        path.touch()  # as a copy does
    assert [path.name for path in checkpoints_in(Path('moved'))] == ['last.pth', 'epoch_1.pth']
    assert newest_start(Path('moved')).meta['iter'] == 5
    done = train('--work-dir', 'moved', '--resume', val_evaluator__scores='[2.0]')
    assert done.status == 0
    assert saved(Path('moved')) == {'epoch_1.pth', 'epoch_2.pth', 'best_score_epoch_2.pth'}  # the old best one is found


def test_a_full_disk_costs_no_older_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(train_cfg__max_epochs=3, default_hooks__checkpoint__max_keep_ckpts=1)
    with monkeypatch.context() as patch:
        fill_disk(patch, 'epoch_2.pth')
        done = train(**options, val_evaluator__scores='[1.0,2.0,1.5]')
    assert (done.status, done.out.count('a checkpoint cannot be written: No space left')) == (0, 2)
    assert (saved(), hidden()) == ({'epoch_3.pth', 'best_score_epoch_3.pth'}, [])  # 1.5 is the best that was saved
    with monkeypatch.context() as patch:
        fill_disk(patch, 'epoch_3.pth')
        done = train('--work-dir', 'last', **options)
    assert (done.status, 'Traceback' in done.err) == (1, False)
    assert saved(Path('last')) == {'epoch_2.pth', 'best_score_epoch_1.pth'}
    with monkeypatch.context() as patch:
        fill_disk(patch, 'epoch_2.pth')
        done = train('--work-dir', 'stop', **options, default_hooks__checkpoint__on_write_error='stop')
    assert (done.status, saved(Path('stop'))) == (1, {'epoch_1.pth', 'best_score_epoch_1.pth'})
    assert train('--work-dir', 'stop', '--resume', **options).status == 0
    assert train('--work-dir', 'other', default_hooks__checkpoint__on_write_error='go on').status == 2


def keys(sampler: type, world_size: int, rank: int, *, start: int = 0, size: int = 2) -> list[list[Any]]:
    own = sampler(range(12), seed=3)
    own.rank, own.world_size = rank, world_size
    own.num_samples = own.total_size = 12
    if sampler is DefaultSampler:
        own.num_samples = 12 // world_size
    batches = ExactBatches(BatchSampler(own, size, drop_last=False), seed=5, length=12)
    batches._rank, batches._world_size, batches.start = rank, world_size, start
    found = []
    for batch in batches:
        found.append([sample.key for sample in batch])
        if len(found) == 12 // size // world_size * 2 - start:  # of an endless sampler two rounds
            break
    return found


@pytest.mark.parametrize('sampler', [DefaultSampler, InfiniteSampler])
def test_random_numbers_of_samples_depend_neither_on_processes_nor_on_the_start(sampler: type) -> None:
    alone = keys(sampler, 1, 0)
    flat = [key for batch in alone for key in batch]
    assert len(set(flat)) == len(flat) == (12 if sampler is DefaultSampler else 24)
    two = [keys(sampler, 2, rank) for rank in (0, 1)]
    assert sorted(key for part in two for batch in part for key in batch) == sorted(flat)
    assert keys(sampler, 1, 0, start=2) == alone[2:]


def test_data_sets_are_seeded_by_sample_and_keep_their_class() -> None:
    class Noise(RunNumbers):
        def __getitem__(self, index: int) -> Any:
            return index, type(index), float(torch.rand(()))

    data = Noise(length=4)
    assert seeded(data) is data
    assert (type(data).__name__, isinstance(data, Noise)) == ('Noise', True)
    batches = ExactBatches(BatchSampler(DefaultSampler(data, seed=0), 2, drop_last=False), seed=1, length=4)
    first = {index: (kind, value) for batch in batches for index, kind, value in data.__getitems__(batch)}
    torch.manual_seed(9)
    batches.epoch = 0
    again = {index: (kind, value) for batch in batches for index, kind, value in map(data.__getitem__, batch)}
    other = {index: (kind, value) for batch in batches for index, kind, value in map(data.__getitem__, batch)}
    assert (first, {kind for kind, _ in first.values()}) == (again, {int})
    assert all(first[index] != other[index] for index in range(4))

"""Which differences of configs belong to a backbone, and which confound a comparison."""

from typing import Any

import pytest

from mmres2net.compare.differences import ABSENT, RANDOM, settings_of, starts_of
from mmres2net.compare.result import Run, Side
from mmres2net.engine.config import load_config
from tests.configs.pairs import PAIRS

TWINS = ('deeplabv3plus_r50.py', 'deeplabv3plus_r2n50.py')


def a_run(name: str, folder: str = '/runs/one', **options: Any) -> Run:
    cfg = load_config(name, {key.replace('__', '.'): value for key, value in options.items()})
    cfg.work_dir = folder
    return Run(folder, cfg.pretty_text, name, f'{folder}/epoch_1.pth', '0' * 64, 0, {}, '1' * 64, 'arrays.npz', 'test')


def sides(*runs: Run) -> list[Side]:
    return [Side(f'side {number}', (run,)) for number, run in enumerate(runs)]


def confounds(*runs: Run) -> dict[str, tuple[str, ...]]:
    return {one.key: one.values for one in settings_of(sides(*runs)) if not one.belongs}


@pytest.mark.parametrize('pair', PAIRS[::4], ids=[name for name, _ in PAIRS[::4]])
def test_twins_differ_in_what_belongs_to_the_backbone(pair: tuple[str, str]) -> None:
    other = a_run(pair[0], '/runs/two', randomness__seed=7, train_dataloader__num_workers=9)
    found = settings_of(sides(a_run(pair[1]), other))
    assert [one for one in found if not one.belongs] == []
    assert 'randomness.seed' in {one.key for one in found if one.belongs == 'seed'}
    assert any('backbone' in one.key for one in found if one.belongs == 'architecture')


@pytest.mark.parametrize(('key', 'value', 'shown'), [
    ('optim_wrapper.optimizer.lr', 0.5, ('0.01', '0.5')), ('train_dataloader.batch_size', 3, ('4', '3')),
    ('model.backbone.norm_eval', True, ('False', 'True')), ('model.backbone.frozen_stages', 1, ('-1', '1')),
    ('model.backbone.init_cfg', None, ('True', ABSENT)), ('model.decode_head.num_classes', 5, ('21', '5')),
    ('test_dataloader.dataset.data_root', 'elsewhere', None), ('load_from', 'other.pth', ('None', 'other.pth')),
])  # fmt: skip
def test_other_differences_are_named(key: str, value: Any, shown: tuple[str, str] | None) -> None:
    found = confounds(a_run(TWINS[0]), a_run(TWINS[1], **{key.replace('.', '__'): value}))
    name = 'model.backbone: loads weights' if key.endswith('init_cfg') else key
    assert list(found) == [name]
    assert shown is None or found[name] == shown


def test_paths_in_the_own_folder_are_equal_and_others_are_not() -> None:
    files = [f'/runs/{name}/data/train.json' for name in ('one', 'two')]
    runs = [a_run(TWINS[0], f'/runs/{name}', load_from=file) for name, file in zip(('one', 'two'), files, strict=True)]
    assert confounds(*runs) == {}
    assert list(confounds(runs[0], a_run(TWINS[0], '/runs/two', load_from=files[0]))) == ['load_from']


def test_runs_of_a_side_may_differ_in_the_seed_alone() -> None:
    make = lambda n, lr: a_run(TWINS[0], f'/{n}', randomness__seed=n, optim_wrapper__optimizer__lr=lr)  # noqa: E731
    first, seed, lr = make(1, 0.1), make(2, 0.1), make(3, 0.2)
    other = Side('B', (a_run(TWINS[0], optim_wrapper__optimizer__lr=0.1),))
    assert [one.key for one in settings_of([Side('A', (first, seed)), other]) if not one.belongs] == []
    (found,) = (one for one in settings_of([Side('A', (first, seed, lr)), other]) if not one.belongs)
    assert (found.key, found.values) == ('A: optim_wrapper.optimizer.lr', ('run 1: 0.1; run 3: 0.2', ABSENT))


def test_a_config_that_cannot_be_read_is_never_green() -> None:
    broken = Run('/a', 'import os; os.abort()', 'x.py', '', '', 0, {}, '', '', '')
    assert confounds(broken, broken.__class__(**{**broken.__dict__, 'folder': '/b'}))
    assert confounds(a_run(TWINS[0]), broken)


def test_starting_weights_have_hash_recipe_and_licence() -> None:
    scratch = a_run(TWINS[0], model__backbone__init_cfg=None)
    theirs, ours, none = starts_of(sides(a_run(TWINS[0]), a_run(TWINS[1]), scratch))
    assert (ours.name, ours.sha256, ours.recipe) == ('res2net50_26w_4s', '06e79181', 'ImageNet-1k, 100 epochs')
    assert 'not for commercial use' in ours.licence
    assert (theirs.part, theirs.sha256, none.name) == ('model.backbone', '0676ba61', RANDOM)

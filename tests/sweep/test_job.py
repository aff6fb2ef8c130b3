"""Runs of a sweep: what is started, skipped, resumed, and what a run that fails leaves of the others."""

import argparse
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmres2net.errors import UserError
from mmres2net.sweep import job
from mmres2net.sweep.main import main, parser
from mmres2net.sweep.runs import find_runs

TINY = ['--depth', '11', '--cardinality', '1', '--scale', '1', '2', '--axes', 'scale', '--width', '2']
NAMES = ['depth11_1c2w1s', 'depth11_1c2w2s']
QUICK = [
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'model.backbone.strides=[4,2,2]',
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight images in the layout of CIFAR-100."""
    root = tmp_path / 'cifar-100-python'
    root.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (8, 3072), np.uint8)
    labels = {'fine_labels': list(range(8)), 'coarse_labels': list(range(8))}
    for name in ('train', 'test'):
        (root / name).write_bytes(pickle.dumps({'data': rows, **labels}))
    return tmp_path


class Started(list):
    """The commands that were started; each leaves what a run leaves, or fails."""

    failing: tuple[str, ...] = ()

    def run(self, command: list[str], *, check: bool) -> SimpleNamespace:
        assert not check
        self.append(command)
        folder = Path(command[command.index('--work-dir') + 1])
        if folder.name in self.failing:
            return SimpleNamespace(returncode=1)
        logs = folder / f'start{len(self)}' / 'vis_data'
        logs.mkdir(parents=True)
        (logs / 'scalars.json').write_text(json.dumps({'accuracy/top1': 7.0, 'step': 1}) + '\n')
        return SimpleNamespace(returncode=0)

    @property
    def names(self) -> list[str]:
        return [Path(command[command.index('--work-dir') + 1]).name for command in self]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    commands = Started()
    monkeypatch.setattr(job, 'subprocess', SimpleNamespace(run=commands.run))
    return commands


def test_two_networks_are_trained_and_drawn(tmp_path: Path, data: Path, capfd) -> None:
    """The real thing: two processes of training on eight images, and the figure of their logs."""
    out = str(tmp_path / 'sweep')
    flags = ['run', '--out', out, '--data', str(data), *TINY, *QUICK]
    assert main(flags) == 0
    runs = find_runs([out])
    assert [run.folder.name for run in runs] == NAMES
    assert all(run.is_finished and 0 <= run.accuracies[1] <= 100 for run in runs)
    small, large = (run.config.model.backbone for run in runs)
    assert {key for key in small if small[key] != large[key]} == {'scales'}
    assert tuple(small.depths) == (1, 1, 1)
    capfd.readouterr()

    assert main(flags) == 0
    text = capfd.readouterr().out
    assert [f'{name}: finished before' in text for name in NAMES] == [True, True]
    assert main(['draw', out]) == 0
    assert (Path(out) / 'figure4.png').read_bytes()[:4] == b'\x89PNG'


def test_runs_start_in_order_and_only_those_that_are_not_finished(tmp_path: Path, data: Path, started: Started) -> None:
    flags = ['run', '--out', str(tmp_path / 'sweep'), '--data', str(data), *TINY, *QUICK]
    started.failing = (NAMES[0],)
    assert main(flags) == 1
    assert started.names == NAMES  # the second runs although the first failed
    started.failing = ()
    assert main(flags) == 0
    assert started.names == [*NAMES, NAMES[0]]
    assert main(flags) == 0
    assert len(started) == 3


def test_run_that_ends_without_its_last_epoch_has_failed(tmp_path: Path, data: Path, started: Started, capsys) -> None:
    options = [option.replace('max_epochs=1', 'max_epochs=2') for option in QUICK]
    assert main(['run', '--out', str(tmp_path / 'sweep'), '--data', str(data), *TINY, *options]) == 1
    assert 'failed with exit status 0, at 1 of 2 epochs' in capsys.readouterr().out


def test_broken_run_is_resumed(tmp_path: Path, data: Path, started: Started) -> None:
    folder = tmp_path / 'sweep' / NAMES[1]
    folder.mkdir(parents=True)
    (folder / 'last_checkpoint').write_text('epoch_1.pth')
    assert main(['run', '--out', str(tmp_path / 'sweep'), '--data', str(data), *TINY, *QUICK]) == 0
    assert [command[-1] == '--resume' for command in started] == [False, True]


def test_command_is_one_of_training(tmp_path: Path, data: Path, started: Started) -> None:
    out = tmp_path / 'sweep'
    main(['run', '--out', str(out), '--data', str(data), '--plain', *TINY, *QUICK])
    command = started[1]
    assert command[:4] == [sys.executable, '-m', 'mmres2net', 'train']
    assert command[4:10] == [
        'cifar100/resnext29_6c24w.py', '--work-dir', str(out / NAMES[1]), '--data', str(data), '--plain'
    ]  # fmt: skip
    assert command[10:] == [
        *QUICK,
        'model.backbone.depths=[1,1,1]',
        'model.backbone.base_width=2',
        'model.backbone.scales=2',
        'model.backbone.cardinality=1',
    ]


def test_dry_run_needs_no_data_and_starts_nothing(tmp_path: Path, started: Started, capsys) -> None:
    out = tmp_path / 'sweep'
    assert main(['run', '--out', str(out), '--dry-run', *TINY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '2 runs:'
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert [line.split()[-2:] for line in lines[1:]] == [['to', 'do']] * 2
    assert (started, out.exists()) == ([], False)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--data', 'nowhere'], r'--data nowhere: no such folder'),
        (['--config', 'cifar100/resnext29_99'], r"no config 'cifar100/resnext29_99'"),
        (['--config', 'cifar100/wrn28_10'], r'no Res2Net of family cifar|cannot be built|base_width'),
        (['--config', 'cifar100/res2next29_6c24w4s'], r'does not become|leave out|cannot be built'),
        (['--cfg-options', 'model.backbone.scales=4'], r'model\.backbone\.scales=4: a sweep sets this itself'),
        (['--cfg-options', 'model.head.num_classes=20'], r'num_classes=20, but the data set has 100'),
        (['--depth', '12', '30'], r'--depth 12'),
    ],
)
def test_mistakes_are_found_before_anything_starts(
    tmp_path: Path, data: Path, started: Started, flags: list[str], message: str
) -> None:
    out = tmp_path / 'sweep'
    with pytest.raises(UserError, match=message):
        main(['run', '--out', str(out), '--data', str(data), *TINY, *flags])
    assert (started, out.exists()) == ([], False)


def test_other_settings_want_another_folder(tmp_path: Path, data: Path, started: Started) -> None:
    flags = ['run', '--out', str(tmp_path / 'sweep'), '--data', str(data), *TINY]
    assert main([*flags, *QUICK]) == 0
    with pytest.raises(UserError, match=r'has a sweep with other settings \(cfg_options='):
        main([*flags, '--cfg-options', 'train_cfg.max_epochs=1'])
    assert len(started) == 2


def test_flags_have_the_papers_baseline() -> None:
    args = parser().parse_args(['run'])
    assert isinstance(args, argparse.Namespace)
    assert (min(args.depth), min(args.cardinality), min(args.scale), args.width) == (29, 6, 1, 24)


def test_help_names_both_parts(capsys) -> None:
    with pytest.raises(SystemExit, match='0'):
        main(['--help'])
    text = capsys.readouterr().out
    assert 'run' in text
    assert 'draw' in text

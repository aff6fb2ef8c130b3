"""``sweep run``: one training run after another, each in a process of its own.

What is on disk is the state: a finished run is skipped, a broken one is resumed, and one that fails leaves the others
alone. So the same command, given again, goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmres2net.complexity import parameters_of
from mmres2net.engine.config import load_config
from mmres2net.engine.flags import flags_of_train
from mmres2net.engine.train import prepare_training
from mmres2net.errors import UserError
from mmres2net.sweep.grid import AXES, Network, network_of
from mmres2net.sweep.runs import accuracies_in, epochs_of

SETTINGS = 'sweep.json'


@dataclass(frozen=True)
class Task:
    """A run that is to be there in the end.

    Args:
        network: What is trained.
        folder: Its work folder.
        flags: Those of ``mmres2net train``.
        epochs: How many epochs it has.
        parameters: Of the whole model.
    """

    network: Network
    folder: Path
    flags: tuple[str, ...]
    epochs: int
    parameters: int

    @property
    def command(self) -> list[str]:
        """What to start: the beginning, or where the run was broken off."""
        resume = ['--resume'] if (self.folder / 'last_checkpoint').is_file() else []
        return [sys.executable, '-m', 'mmres2net', 'train', *self.flags, *resume]

    @property
    def state(self) -> str:
        """How far it is."""
        done = max(accuracies_in(self.folder), default=0)
        return 'finished' if done >= self.epochs else f'{done} of {self.epochs} epochs' if done else 'to do'


def tasks_of(networks: Sequence[Network], args: argparse.Namespace) -> list[Task]:
    """Return the runs of ``networks``; their config is loaded, their models are built without memory, data are found.

    Raises:
        UserError: A flag, the config, a network or the data do not fit, so that the first run would fail as well.
    """
    tasks: list[Task] = []
    _leave_the_network_alone(args.cfg_options, networks[0])
    for network in networks:
        folder = Path(args.out) / network.name
        flags = [args.config, '--work-dir', str(folder), *_passed_on(args)]
        flags += ['--cfg-options', *args.cfg_options, *(f'{key}={_text(v)}' for key, v in network.options.items())]
        parsed = flags_of_train('mmres2net sweep run').parse_args(flags)
        cfg = load_config(parsed.config, parsed.cfg_options) if tasks or args.dry_run else prepare_training(parsed)[0]
        if network_of(cfg) != network:
            raise UserError(f'{args.config}: its backbone does not become {network.name}, but {network_of(cfg).name}')
        tasks.append(Task(network, folder, tuple(flags), epochs_of(cfg), parameters_of(cfg)))
    return tasks


def _leave_the_network_alone(options: Sequence[str], network: Network) -> None:
    fixed = [option for option in options if option.partition('=')[0] in network.options]
    if fixed:
        flags = ', '.join(f'--{name}' for name in (*AXES, 'width'))
        raise UserError(f'--cfg-options {" ".join(fixed)}: a sweep sets this itself; use {flags}')


def _passed_on(args: argparse.Namespace) -> list[str]:
    data = ['--data', args.data] if args.data else []
    return [*data, *(f'--{name}' for name in ('amp', 'plain') if getattr(args, name))]


def _text(value: Any) -> str:
    return f'[{",".join(map(str, value))}]' if isinstance(value, tuple) else str(value)


def keep_settings(args: argparse.Namespace) -> None:
    """Write down what all runs of a sweep have in common, or compare with what was written.

    Raises:
        UserError: The folder has runs with other settings, which would stand in one figure with these.
    """
    path = Path(args.out) / SETTINGS
    settings = {'config': args.config, 'cfg_options': args.cfg_options, 'amp': args.amp}
    try:
        if path.is_file():
            before = json.loads(path.read_text(encoding='utf-8'))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings, indent=1) + '\n', encoding='utf-8')
            before = settings
    except (OSError, ValueError) as error:
        raise UserError(f'--out {args.out}: {path} cannot be read or written: {error}') from error
    other = [f'{key}={before.get(key)!r}, not {value!r}' for key, value in settings.items() if before.get(key) != value]
    if other:
        raise UserError(f'--out {args.out} has a sweep with other settings ({"; ".join(other)}); choose another folder')


def run_all(tasks: Sequence[Task]) -> list[Task]:
    """Run what is not finished, in order, and return the tasks that failed."""
    failed = []
    for i, task in enumerate(tasks):
        title = f'[{i + 1}/{len(tasks)}] {task.network.name}'
        if task.state == 'finished':
            print(f'{title}: finished before', flush=True)
            continue
        print(f'{title}: {task.state}\n  {" ".join(task.command)}', flush=True)
        status = subprocess.run(task.command, check=False).returncode
        if status or task.state != 'finished':
            failed.append(task)
            print(f'{title}: failed with exit status {status}, at {task.state}; the others go on', flush=True)
    return failed


def plan(tasks: Sequence[Task]) -> str:
    """Return the runs as a table: network, size, state."""
    width = max(len(task.network.name) for task in tasks)
    rows = [f'  {task.network.name:<{width}}  {task.parameters / 1e6:6.2f}M  {task.state}' for task in tasks]
    return '\n'.join([f'{len(tasks)} runs:', *rows])

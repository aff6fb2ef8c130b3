"""What a training run left in its folder: which network it trained, and how well it did by epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from mmres2net.complexity import parameters_of
from mmres2net.engine.config import load_config
from mmres2net.errors import UserError
from mmres2net.sweep.grid import Network, network_of

METRIC = 'accuracy/top1'
LOGS = '*/vis_data/scalars.json'  # one for each start of the run


@dataclass(frozen=True)
class Run:
    """A run of training.

    Args:
        folder: Its work folder.
        config: The whole config that it ran with.
        network: What it trained.
        epochs: How many epochs it has when it is finished.
        accuracies: Top-1 accuracy on the test images in percent, by epoch.
    """

    folder: Path
    config: Config
    network: Network
    epochs: int
    accuracies: Mapping[int, float]

    @property
    def done(self) -> int:
        """Epochs that were evaluated."""
        return max(self.accuracies, default=0)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch was evaluated."""
        return self.epochs in self.accuracies

    def top1(self, best: bool) -> float:
        """Return the accuracy after the last epoch, or the best of all; the run must be finished."""
        return max(self.accuracies.values()) if best else self.accuracies[self.epochs]

    @cached_property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return parameters_of(self.config)


def epochs_of(cfg: Config) -> int:
    """Return how many epochs a config trains.

    Raises:
        UserError: It counts steps instead.
    """
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if not epochs:
        raise UserError('its train_cfg has no max_epochs, and a sweep reads accuracies by epoch')
    return int(epochs)


def is_run(folder: Path) -> bool:
    """Whether a folder is the work folder of a run: a config lies in it, and logs below."""
    return folder.is_dir() and any(folder.glob('*.py')) and any(folder.glob('*/vis_data'))


def read_run(folder: Path) -> Run:
    """Return what is known of the run in ``folder``.

    Raises:
        UserError: Not one config, or one that is no network of a sweep; a log that cannot be read.
    """
    configs = sorted(folder.glob('*.py'))
    if len(configs) != 1:
        listed = ', '.join(path.name for path in configs) or 'none'
        raise UserError(f'{folder}: a run leaves one config in its folder, here are {listed}')
    cfg = load_config(str(configs[0]))
    try:
        return Run(folder, cfg, network_of(cfg), epochs_of(cfg), accuracies_in(folder))
    except UserError as error:
        raise UserError(f'{folder}: {error}') from error


def accuracies_in(folder: Path) -> dict[int, float]:
    """Return the accuracies by epoch in a run's logs; where a run was resumed, those of its later start.

    Raises:
        UserError: A log that is damaged; a last line that was cut off is passed over.
    """
    found: dict[int, float] = {}
    for path in sorted(folder.glob(LOGS)):
        lines = path.read_text(encoding='utf-8').splitlines()
        for i, line in enumerate(lines):
            try:
                entry = json.loads(line)
            except ValueError as error:
                if i == len(lines) - 1:
                    break
                raise UserError(f'{path}, line {i + 1}, is not JSON: {error}') from error
            if METRIC in entry:
                found[int(entry['step'])] = float(entry[METRIC])
    return found


def find_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Return the runs in ``folders``, each a run's folder or one that holds several, without doubles.

    Raises:
        UserError: A folder without any, or two runs of one network.
    """
    found: dict[Path, Run] = {}
    for name in folders:
        folder = Path(name)
        inside = [folder] if is_run(folder) else [path for path in sorted(folder.glob('*')) if is_run(path)]
        if not inside:
            raise UserError(f'{folder}: no run of training in there; give the --out of a sweep or work folders')
        found.update({path.resolve(): read_run(path) for path in inside})
    by_network: dict[Network, Run] = {}
    for run in found.values():
        other = by_network.setdefault(run.network, run)
        if other is not run:
            raise UserError(f'{other.folder} and {run.folder} trained the same network; name one of them')
    return list(by_network.values())

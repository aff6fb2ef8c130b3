"""The work dirs of a sweep: which network and seed a run has, and its accuracies by epoch."""

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
from mmres2net.sweep.networks import Network, network_of

METRIC = 'accuracy/top1'


@dataclass(frozen=True)
class Run:
    """A training run."""

    folder: Path  # its work dir
    config: Config
    network: Network
    seed: int | None

    @property
    def epochs(self) -> int:
        """Epochs of the finished run."""
        return int(self.config.train_cfg.max_epochs)

    @property
    def state(self) -> str:
        """``finished``, ``not started``, how many epochs are done, or what is wrong with its logs."""
        try:
            done = max(accuracies_in(self.folder), default=0)
        except UserError as error:
            return f'damaged: {error}'
        return 'finished' if done >= self.epochs else f'{done} of {self.epochs} epochs' if done else 'not started'

    @cached_property
    def accuracies(self) -> Mapping[int, float]:
        """Top-1 accuracy on the test images in percent, by epoch."""
        return accuracies_in(self.folder)

    @cached_property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return parameters_of(self.config)


def run_of(folder: Path, cfg: Config) -> Run:
    """Return the run of ``cfg`` in ``folder``; a UserError if its network cannot be in a sweep, or it counts steps."""
    if not (cfg.get('train_cfg') or {}).get('max_epochs'):
        raise UserError(f'{folder}: train_cfg has no max_epochs; a sweep reads accuracies by epoch')
    try:
        return Run(folder, cfg, network_of(cfg), (cfg.get('randomness') or {}).get('seed'))
    except UserError as error:
        raise UserError(f'{folder}: {error}') from error


def accuracies_in(folder: Path) -> dict[int, float]:
    """Return the accuracies by epoch in a run's logs; of a resumed run the later ones.

    A damaged log is a UserError; a last line that was cut off is ignored.
    """
    found: dict[int, float] = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):  # one for each start of the run
        lines = path.read_bytes().splitlines()
        for i, line in enumerate(lines):
            try:
                entry = json.loads(line)
                if METRIC in entry:
                    found[int(entry['step'])] = float(entry[METRIC])
            except (ValueError, TypeError, KeyError) as error:
                if i < len(lines) - 1:
                    raise UserError(f'line {i + 1} of {path} is not an entry of a log: {error!r}') from error
    return found


def find_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Return the runs in ``folders``, each a work dir or the ``--out`` of a sweep.

    A UserError says that a folder has no run, or that two runs have the same network and seed.
    """
    found: dict[tuple[Network, int | None], Run] = {}
    for folder in map(Path, folders):
        inside = [path for path in (folder, *sorted(folder.glob('*'))) if any(path.glob('*/vis_data'))]
        configs = {path: sorted(path.glob('*.py')) for path in inside}
        if not any(configs.values()):
            raise UserError(f'{folder} has no training run; give the --out of a sweep, or work dirs')
        for path, files in configs.items():
            if len(files) != 1:
                raise UserError(f'{path} must have the one config of its run, but has {len(files)}')
            run = run_of(path, load_config(str(files[0])))
            other = found.setdefault((run.network, run.seed), run)
            if other.folder.resolve() != path.resolve():
                raise UserError(f'{other.folder} and {path} have the same network and seed; give one of them')
    return list(found.values())

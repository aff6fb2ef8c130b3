"""The networks of a sweep, and their work dirs: a baseline, and networks that differ from it in one dimension each.

Figure 4 of the paper has a baseline of depth 29, cardinality 6 and scale 1 (section 4.4) and prints no other value. The
text names the scales 2 to 6. The cardinalities and depths of :data:`SWEEP_VALUES` give networks of about the same
sizes. The width is that of the paper's Res2NeXt-29 of cardinality 6 (table 4).
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from mmres2net.complexity import parameters_of
from mmres2net.engine.config import configs_in, load_config
from mmres2net.errors import UserError
from mmres2net.flags import SWEEP_VALUES, SWEEP_WIDTH
from mmres2net.models import find_arch

LAYERS = 9  # per block in each of three stages; stem and classifier are two more layers
AXES = tuple(SWEEP_VALUES)
METRIC = 'accuracy/top1'


@dataclass(frozen=True, order=True)
class Network:
    """A network of the CIFAR family by the numbers that the paper gives."""

    depth: int  # 9 n + 2 layers for n blocks in each of three stages
    cardinality: int  # groups of each 3x3 convolution
    scale: int  # number of splits
    width: int = SWEEP_WIDTH  # channels of a group where a stage's planes are 64

    @property
    def name(self) -> str:
        """The name of its runs' work dirs, before the seed."""
        return f'depth{self.depth}_{self.cardinality}c{self.width}w{self.scale}s'

    @property
    def options(self) -> list[str]:
        """The ``--cfg-options`` that make a CIFAR backbone this network."""
        blocks = (self.depth - 2) // LAYERS
        values = {'depths': f'[{blocks},{blocks},{blocks}]', 'base_width': self.width}
        values |= {'scales': self.scale, 'cardinality': self.cardinality}
        return [f'model.backbone.{key}={value}' for key, value in values.items()]

    def changed(self, other: 'Network') -> list[str]:
        """Return the axes in which ``other`` differs."""
        return [axis for axis in AXES if getattr(self, axis) != getattr(other, axis)]


def networks_of(values: Mapping[str, Sequence[int]], axes: Sequence[str], width: int = SWEEP_WIDTH) -> list[Network]:
    """Return the baseline, smallest in each axis, and what differs along ``axes``; a UserError for a wrong value."""
    for axis, numbers in {**values, 'width': [width]}.items():
        for number in numbers:
            if number < 1 or (axis == 'depth' and (number < LAYERS + 2 or (number - 2) % LAYERS)):
                allowed = '9 n + 2 layers, such as 11, 20, 29' if axis == 'depth' else '1 or more'
                raise UserError(f'--{axis} {number}: choose {allowed}')
    baseline = Network(**{axis: min(values[axis]) for axis in AXES}, width=width)
    networks = [baseline]
    for axis in axes:
        others = sorted(set(values[axis]) - {getattr(baseline, axis)})
        if not others:
            raise UserError(f'--{axis} {min(values[axis])}: give two values or more, or leave it out of --axes')
        networks += [replace(baseline, **{axis: number}) for number in others]
    return networks


def network_of(cfg: Config) -> Network:
    """Return the network that is the backbone of a config; a UserError if it is none of a sweep."""
    backbone = dict((cfg.get('model') or {}).get('backbone') or {})
    arch = find_arch(backbone['arch']) if 'arch' in backbone else None
    shape = {'scales': 4, 'base_width': 26, 'cardinality': 1, **(vars(arch) if arch else {}), **backbone}
    depths = tuple(shape.get('depths') or ())
    known = str(backbone.get('type')).rpartition('.')[2] == 'Res2Net' and shape.get('family') == 'cifar'
    if not known or len(depths) != 3 or len(set(depths)) != 1 or shape.get('se_reduction'):
        raise UserError(
            'a sweep compares Res2Nets of family cifar with three stages of equal depth and without SE; '
            f'this backbone is {backbone}'
        )
    return Network(LAYERS * depths[0] + 2, shape['cardinality'], shape['scales'], shape['base_width'])


@dataclass(frozen=True)
class Run:
    """A training run."""

    folder: Path  # its work dir
    config: Config
    network: Network

    @property
    def seed(self) -> int | None:
        """The random seed."""
        return (self.config.get('randomness') or {}).get('seed')

    @property
    def epochs(self) -> int:
        """Epochs of the finished run."""
        return int(self.config.train_cfg.max_epochs)

    @property
    def state(self) -> str:
        """``finished``, ``not started``, or how many epochs are done."""
        done = max(self.accuracies(), default=0)
        return 'finished' if done >= self.epochs else f'{done} of {self.epochs} epochs' if done else 'not started'

    @cached_property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return parameters_of(self.config)

    def accuracies(self) -> dict[int, float]:
        """Return the top-1 accuracy of each evaluation in percent, by epoch; of a resumed run the later ones."""
        found: dict[int, float] = {}
        for path in sorted(self.folder.glob('*/vis_data/scalars.json')):  # one for each start of the run
            for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
                with suppress(ValueError, TypeError, KeyError):  # a line that was cut off
                    entry = json.loads(line)
                    found[int(entry['step'])] = float(entry[METRIC])
        return found


def run_of(folder: Path, cfg: Config) -> Run:
    """Return the run of ``cfg`` in ``folder``; a UserError if its network cannot be in a sweep, or it counts steps."""
    if not (cfg.get('train_cfg') or {}).get('max_epochs'):
        raise UserError(f'{folder}: train_cfg has no max_epochs; a sweep reads accuracies by epoch')
    try:
        return Run(folder, cfg, network_of(cfg))
    except UserError as error:
        raise UserError(f'{folder}: {error}') from error


def find_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Return the runs in ``folders``, work dirs or ``--out`` of sweeps; a UserError for none, or one twice."""
    found: dict[tuple[Network, int | None], Run] = {}
    for folder in map(Path, folders):
        places = [folder] if any(folder.glob('*/vis_data')) else sorted(folder.glob('*'))  # a run has its tests inside
        inside = [path for path in places if any(path.glob('*/vis_data'))]
        configs = {path: configs_in(path) for path in inside}
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

"""The networks of a sweep: a baseline, and networks that differ from it in one dimension each.

Figure 4 of the paper has a baseline of depth 29, cardinality 6 and scale 1 (section 4.4) and prints no other value. The
text names the scales 2 to 6. The cardinalities and depths here give networks of about the same sizes. The width is
that of the paper's Res2NeXt-29 of cardinality 6 (table 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmengine.config import Config

from mmres2net.errors import UserError
from mmres2net.models import find_arch

WIDTH = 24
LAYERS = 9  # per block in each of three stages; stem and classifier are two more layers
VALUES: Mapping[str, tuple[int, ...]] = {
    'cardinality': (6, 12, 18, 24, 30, 36),
    'depth': (29, 47, 74, 101, 128, 155),
    'scale': (1, 2, 3, 4, 5, 6),
}
AXES = tuple(VALUES)


@dataclass(frozen=True, order=True)
class Network:
    """A network of the CIFAR family by the numbers that the paper gives."""

    depth: int  # 9 n + 2 layers for n blocks in each of three stages
    cardinality: int  # groups of each 3x3 convolution
    scale: int  # number of splits
    width: int = WIDTH  # channels of a group where a stage's planes are 64

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

    def changed(self, other: Network) -> list[str]:
        """Return the axes in which ``other`` differs."""
        return [axis for axis in AXES if getattr(self, axis) != getattr(other, axis)]


def networks_of(values: Mapping[str, Sequence[int]], axes: Sequence[str], width: int = WIDTH) -> list[Network]:
    """Return the baseline, which has the smallest value of each axis, and what differs from it along ``axes``.

    A UserError names a value that no network has, or an axis with a single value.
    """
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
    """Return the network that is the backbone of a config.

    A UserError says that it is not of the CIFAR family, has stages of different depths, or squeeze-and-excitation.
    """
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

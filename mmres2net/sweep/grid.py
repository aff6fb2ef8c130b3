"""The networks of a sweep: a baseline, and others that differ from it in one dimension each.

The paper's figure 4 has a baseline of depth 29, cardinality 6 and scale 1 (section 4.4) and prints no other value. Its
text speaks of the scales 2 to 6, so these are given; cardinality and depth are chosen here so that their networks
are about as large as those of the scales. The width is that of the paper's Res2NeXt-29 of cardinality 6 (table 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.config import Config

from mmres2net.errors import UserError
from mmres2net.models import find_arch

WIDTH = 24
LAYERS = 9  # three stages of blocks of three layers; stem and classifier are two more
VALUES: Mapping[str, tuple[int, ...]] = {
    'cardinality': (6, 12, 18, 24, 30, 36),
    'depth': (29, 47, 74, 101, 128, 155),
    'scale': (1, 2, 3, 4, 5, 6),
}
AXES = tuple(VALUES)


@dataclass(frozen=True, order=True)
class Network:
    """A network of the CIFAR family by the numbers that the paper gives.

    Args:
        depth: Layers, 9 n + 2 for n blocks in each of three stages.
        cardinality: Groups of each 3x3 convolution.
        scale: Number of splits.
        width: Channels of a group where a stage's planes are 64.
    """

    depth: int
    cardinality: int
    scale: int
    width: int = WIDTH

    @property
    def name(self) -> str:
        """The folder of its run."""
        return f'depth{self.depth}_{self.cardinality}c{self.width}w{self.scale}s'

    @property
    def options(self) -> dict[str, Any]:
        """What to set in a config whose backbone is a network of the CIFAR family."""
        blocks = (self.depth - 2) // LAYERS
        return {
            'model.backbone.depths': (blocks, blocks, blocks),
            'model.backbone.base_width': self.width,
            'model.backbone.scales': self.scale,
            'model.backbone.cardinality': self.cardinality,
        }

    def changed(self, other: Network) -> list[str]:
        """Return the axes in which ``other`` differs."""
        return [axis for axis in AXES if getattr(self, axis) != getattr(other, axis)]


def networks_of(values: Mapping[str, Sequence[int]], axes: Sequence[str], width: int = WIDTH) -> list[Network]:
    """Return the baseline, which has the smallest value of each axis, and what differs from it along ``axes``.

    Raises:
        UserError: A value that no network has, or an axis with one value alone.
    """
    for axis, numbers in values.items():
        for number in numbers:
            _check(axis, number)
    _check('width', width)
    baseline = Network(**{axis: min(values[axis]) for axis in AXES}, width=width)
    found = [baseline]
    for axis in axes:
        others = sorted(set(values[axis]) - {getattr(baseline, axis)})
        if not others:
            raise UserError(f'--{axis} {min(values[axis])}: an axis needs two values, or leave it out of --axes')
        found += [replace(baseline, **{axis: number}) for number in others]
    return found


def _check(axis: str, number: int) -> None:
    if axis == 'depth' and (number < LAYERS + 2 or (number - 2) % LAYERS):
        raise UserError(f'--depth {number}: these networks have 9 n + 2 layers, such as 11, 20, 29, 38')
    if number < 1:
        raise UserError(f'--{axis} {number}: choose 1 or more')


def network_of(cfg: Config) -> Network:
    """Return the network that a config has as its backbone.

    Raises:
        UserError: It is none of the CIFAR family with as many blocks in each stage and without squeeze-and-excitation.
    """
    backbone = dict((cfg.get('model') or {}).get('backbone') or {})
    arch = find_arch(backbone['arch']) if 'arch' in backbone else None
    row = {'scales': 4, 'base_width': 26, 'cardinality': 1, **(vars(arch) if arch else {}), **backbone}
    depths = tuple(row.get('depths') or ())
    known = str(backbone.get('type')).rpartition('.')[2] == 'Res2Net' and row.get('family') == 'cifar'
    if not known or len(depths) != 3 or len(set(depths)) != 1 or row.get('se_reduction'):
        raise UserError(
            'its backbone is no Res2Net of family cifar with three stages of as many blocks and without SE, which is '
            f'what a sweep compares: {backbone}'
        )
    return Network(LAYERS * depths[0] + 2, row['cardinality'], row['scales'], row['base_width'])

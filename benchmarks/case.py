"""What is measured: the case, the job that a contender does in it, and its result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUITES = {
    'inference': 'forward pass of a backbone, without gradients',
    'training': 'forward and backward pass of a backbone, norms on running statistics',
    'step': 'training step of a whole model: preprocessing, losses, backward pass, optimizer',
    'image': 'test image of a whole model: preprocessing, network, post-processing',
}
# Roundoffs as multiples of float32's, by which outputs may differ more.
PRECISIONS = {'fp32': 1, 'tf32': 2**13, 'fp16': 2**13, 'bf16': 2**16}
Outputs = dict[str, NDArray[Any]]


class DifferenceError(ValueError):
    """Outputs that should be equal are not."""


class MissingError(Exception):
    """A contender cannot be measured here, which is no fault: a package or a device is missing."""


@dataclass(frozen=True)
class Case:
    """One measurement."""

    suite: str
    size: tuple[int, int]  # height and width in pixels
    batch: int = 1
    config: str = 'faster_rcnn_r2n50'  # of the suites ``step`` and ``image``
    device: str = 'cpu'
    threads: int = 2
    precision: str = 'fp32'  # a key of ``PRECISIONS``, or fp64

    @property
    def title(self) -> str:
        """A name for tables and plots."""
        what = f'{self.config}, {self.suite}' if self.suite in ('step', 'image') else self.suite
        precision = '' if self.precision == 'fp32' else f'{self.precision}, '
        return f'{what}, {self.batch}x3x{self.size[0]}x{self.size[1]}, {precision}{self.device}'


@dataclass(frozen=True)
class Contender:
    """A row of the table: its job has ``run``, which is timed, and ``outputs``, the arrays that are compared."""

    name: str
    suites: tuple[str, ...]
    build: Callable[[Case], Any]
    same_as: str | None = None  # the contender whose outputs it must reproduce, if any computes the same
    devices: tuple[str, ...] = ('cpu', 'cuda')

    @property
    def ours(self) -> bool:
        """Whether it is code of this package, which plots show in another color."""
        return 'ours' in self.name or 'sped up' in self.name


def difference(got: Outputs, wanted: Outputs, *, near: float = 0.01) -> float:
    """Return the largest difference of two contenders' outputs, as a share of each array's largest value.

    Detections (``boxes``, ``labels``, ``scores`` and ``masks``) are compared one to one, since rounding may exchange
    their order and decide which of two overlapping boxes is suppressed: a share of twice ``near`` may have no
    counterpart with a box and a score as near as that.
    ``DifferenceError``: arrays are missing, not finite or of another shape, or detections differ.
    """
    if got.keys() != wanted.keys():
        raise DifferenceError(f'outputs {sorted(got)}, expected {sorted(wanted)}')
    if not all(np.isfinite(array).all() for array in (*got.values(), *wanted.values())):
        raise DifferenceError('outputs are not finite')
    if 'boxes' in wanted:
        return _detection_difference(got, wanted, near, 2 * near)
    worst = 0.0
    for name, array in wanted.items():
        if got[name].shape != array.shape:
            raise DifferenceError(f'{name} has the shape {got[name].shape}, expected {array.shape}')
        scale = max(float(np.abs(array).max(initial=0)), 1e-12)
        worst = max(worst, float(np.abs(got[name] - array).max(initial=0)) / scale)
    return worst


def _detection_difference(got: Mapping[str, Any], wanted: Mapping[str, Any], near: float, missing: float) -> float:
    """Compare each detection with the nearest one of its label; a mask may differ in as many pixels as are missing."""
    count = len(wanted['boxes'])
    if not count:
        raise DifferenceError('the reference detects nothing, so there is nothing to compare')
    free, worst, lost = set(range(len(got['boxes']))), 0.0, abs(len(got['boxes']) - count)
    for i in range(count):
        rivals = [j for j in free if got['labels'][j] == wanted['labels'][i]]
        size = np.abs(wanted['boxes'][i]).max()
        distances = [
            max(np.abs(got['boxes'][j] - wanted['boxes'][i]).max() / size, abs(got['scores'][j] - wanted['scores'][i]))
            for j in rivals
        ]
        best = int(np.argmin(distances)) if rivals else -1
        if best < 0 or distances[best] > near:
            lost += 1
            continue
        free.discard(rivals[best])
        worst = max(worst, float(distances[best]))
        if 'masks' in wanted:
            pair = got['masks'][rivals[best]], wanted['masks'][i]
            union = max(int(np.logical_or(*pair).sum()), 1)
            if np.logical_xor(*pair).sum() > missing * union:
                raise DifferenceError(f'the mask of detection {i} differs')
    if lost > missing * count:
        raise DifferenceError(f'{lost} of {count} detections have no counterpart')
    return worst

"""Outputs of contenders compared, before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmres2net.bench.measure import MeasurementError
from mmres2net.bench.turns import Contender, Team, say

Differences = dict[str, dict[str, float]]


def check(team: Team, references: Mapping[str, Path], bounds: Mapping[str, float], folder: Path) -> Differences:
    """Compare the outputs of each contender with those of what it has to equal.

    A contender whose counterpart is absent is left out: there is nothing to check it with.

    Args:
        team: The contenders, built.
        references: Files of outputs (``.npz``) by name; a contender may serve as reference too.
        bounds: The largest difference allowed, as a share of the largest value, by the first word of an output's name.
        folder: Where files may be put; they are removed.

    Returns:
        The largest difference of each output, as a share of its largest value, by contender.

    Raises:
        MeasurementError: A contender gives something else.
    """
    known = dict(references)
    wanted = {one.same_as for one in team.present} - set(references)
    for one in team.present:
        if one.name in wanted:
            known[one.name] = folder / f'of {len(known)}.npz'
            team.ask(one, 'check', file=str(known[one.name]))
    differences: Differences = {}
    for one in team.present:
        if one.same_as is None:
            continue
        if one.same_as not in known:
            team.leave_out(one, f'nothing to check it with: {team.absent.get(one.same_as, one.same_as)}')
            continue
        say(f'check: {one.name}')
        file = folder / 'own.npz'
        team.ask(one, 'check', file=str(file))
        differences[one.name] = compare(file, known[one.same_as])
        file.unlink()
        _judge(one, differences[one.name], bounds)
    return differences


def compare(file: Path, reference: Path) -> dict[str, float]:
    """Return the largest difference of each output in two files, as a share of the largest value of ``reference``.

    It is infinite where something is missing, of another shape, or no number.
    """
    with np.load(file) as ours, np.load(reference) as theirs:
        names = [*theirs.files, *(name for name in ours.files if name not in theirs.files)]
        return {
            name: _difference(ours[name], theirs[name]) if name in ours.files and name in theirs.files else float('inf')
            for name in names
        }


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float('inf')
    if not theirs.size:
        return 0.0
    wide = theirs.astype(np.float64)
    return float(np.abs(ours - wide).max() / (np.abs(wide).max() or 1))


def _judge(one: Contender, found: Mapping[str, float], bounds: Mapping[str, float]) -> None:
    wrong = {name: worst for name, worst in found.items() if not worst <= bounds[name.split()[0]]}
    if wrong:
        name, worst = max(wrong.items(), key=lambda item: item[1])
        raise MeasurementError(
            f'{one.name} does not give what {one.same_as} gives: {name} differs by {worst:.2g} of its largest value, '
            f'allowed are {bounds[name.split()[0]]:g}; nothing was timed'
        )

"""What all benchmarks in turns share: flags, the order of a measurement, the ceiling of the machine, the text."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmres2net.bench.check import Differences, check
from mmres2net.bench.figures import Column, Runs, Summary, as_json, summarise
from mmres2net.bench.measure import MeasurementError, machine
from mmres2net.bench.page import table
from mmres2net.bench.turns import Contender, outputs_of, say, team_of
from mmres2net.errors import UserError

JOBS = 'mmres2net.bench.jobs'
ARCH = 'res2net50_26w_4s'  # the network of most of the paper
PACKAGES = ('torch', 'timm', 'onnxruntime', 'openvino', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain')

# What torch can do here at best, as far as two shapes that suit it can tell.
CEILING = {
    'matrix product 2048x2048x2048': ('MatrixProduct', {'side': 2048}),
    'convolution 3x3, 256 to 256, 56x56, channels last': ('Convolution', {'channels': 256, 'side': 56}),
}


@dataclass(frozen=True)
class Case:
    """A group of contenders that take turns.

    Args:
        title: What is measured, as a heading.
        contenders: Who takes turns.
        references: Jobs whose outputs contenders are checked with, by the name that ``same_as`` gives.
        bounds: The largest difference allowed, as a share of the largest value, by the first word of an output's name.
    """

    title: str
    contenders: Sequence[Contender]
    references: Mapping[str, Contender] = field(default_factory=dict)
    bounds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What came out of a :class:`Case`.

    Args:
        case: What was measured.
        runs: All turns, by contender.
        summaries: The figures, by contender.
        absent: Why a contender was not measured, by its name.
        differences: The largest difference of each output, by contender.
        facts: What references and contenders know of themselves.
        ceiling: Operations a second by the name of the measure; empty without one.
    """

    case: Case
    runs: Runs
    summaries: Mapping[str, Summary]
    absent: Mapping[str, str]
    differences: Differences
    facts: Mapping[str, Mapping[str, Any]]
    ceiling: Mapping[str, float]

    def json(self) -> dict[str, Any]:
        """Return all figures as plain dicts."""
        return {
            'title': self.case.title, 'figures': as_json(self.summaries), 'absent': self.absent,
            'differences': self.differences, 'facts': self.facts, 'ceiling': self.ceiling, 'runs': self.runs,
        }  # fmt: skip

    def difference_column(self) -> Column:
        """Return the largest difference of each contender's outputs."""
        worst = {name: max(found.values(), default=0.0) for name, found in self.differences.items()}
        return Column('largest difference', {name: f'{value:.0e}' for name, value in worst.items()})

    def ceiling_columns(self, operations: Mapping[str, int]) -> list[Column]:
        """Return operations a second, and the share of the ceiling; ``operations`` a call are by contender."""
        speeds = {name: count / self.summaries[name].seconds for name, count in operations.items()}
        top = max(self.ceiling.values(), default=None)
        columns = [Column('GFLOP/s', {name: f'{speed / 1e9:,.0f}' for name, speed in speeds.items()})]
        if top:
            columns.append(Column('of the ceiling', {name: f'{speed / top:.0%}' for name, speed in speeds.items()}))
        return columns

    def ceiling_text(self) -> str:
        """Return a sentence with the measures of the ceiling."""
        found = ', '.join(f'{name} {speed / 1e9:,.0f} GFLOP/s' for name, speed in self.ceiling.items())
        return f'Ceiling, measured in the same turns: {found}; the larger counts.' if found else ''


def add_turn_flags(parser: argparse.ArgumentParser, repeats: int) -> None:
    """Add the flags of all benchmarks in turns."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    parser.add_argument('--repeats', type=int, default=repeats, help='turns of each contender (default: %(default)s)')
    parser.add_argument(
        '--turn', type=float, default=1.0, metavar='SECONDS', help='least length of a turn (default: %(default)s)'
    )
    parser.add_argument('--threads', type=int, default=threads, help='threads of each contender (default: %(default)s)')
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='TEXT',
        help='measure the contenders whose names hold one of these texts, and those they are compared with',
    )


def check_flags(args: argparse.Namespace) -> None:
    """Check the flags of all benchmarks in turns.

    Raises:
        UserError: A number out of range.
    """
    if args.repeats < 1 or args.threads < 1 or args.turn <= 0:
        raise UserError('--repeats and --threads: choose 1 or more; --turn: more than 0 seconds')


def parse_size(text: str, flag: str) -> tuple[int, int]:
    """Return height and width of ``HxW``.

    Raises:
        UserError: It is not of this form, or too small for a backbone.
    """
    height, _, width = text.partition('x')
    if not (height.isdigit() and width.isdigit()):
        raise UserError(f'{flag} {text}: give height and width in pixels, as in 800x1216')
    if min(int(height), int(width)) < 32:
        raise UserError(f'{flag} {text}: choose 32 pixels or more')
    return int(height), int(width)


def chosen(contenders: Sequence[Contender], only: Sequence[str] | None) -> list[Contender]:
    """Return the contenders that ``--only`` asks for, with all that they are compared or checked with.

    Raises:
        UserError: No name holds any of the texts.
    """
    if not only:
        return list(contenders)
    names = {one.name for one in contenders if any(text in one.name for text in only)}
    if not names:
        raise UserError(f'--only {" ".join(only)}: in no name of {"; ".join(one.name for one in contenders)}')
    while True:
        needed = {name for one in contenders if one.name in names for name in (one.against, one.same_as)}
        more = {one.name for one in contenders if one.name in needed} - names
        if not more:
            return [one for one in contenders if one.name in names]
        names |= more


def measure(case: Case, args: argparse.Namespace, folder: Path, ceiling: Sequence[Contender] = ()) -> Measured:
    """Check the contenders of ``case``, time them in turns, and return what came out.

    Raises:
        MeasurementError: Contenders disagree, or one failed; nothing of the case is kept then.
    """
    case = replace(case, contenders=chosen(case.contenders, args.only))
    say(f'== {case.title}')
    facts, files = _references(case, args.threads, folder)
    with team_of([*case.contenders, *ceiling], args.threads) as team:
        differences = check(team, files, case.bounds, folder)
        runs = team.time(args.repeats, args.turn)
        facts |= team.facts()
    summaries = summarise([*case.contenders, *ceiling], runs)
    if not any(one.name in summaries for one in case.contenders):
        reasons = '; '.join(f'{name}: {reason}' for name, reason in team.absent.items())
        raise MeasurementError(f'{case.title}: nothing could be measured: {reasons}')
    top = {one.name: facts[one.name]['operations'] / summaries[one.name].seconds for one in ceiling}
    return Measured(case, runs, summaries, team.absent, differences, facts, top)


def _references(case: Case, threads: int, folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Path]]:
    """Write the outputs of the references that are asked for; return their facts and files."""
    facts: dict[str, dict[str, Any]] = {}
    files: dict[str, Path] = {}
    for name in dict.fromkeys(one.same_as for one in case.contenders if one.same_as in case.references):
        assert name is not None  # it is in a mapping of names
        say(f'reference: {case.references[name].name}')
        files[name] = folder / f'reference {len(files)}.npz'
        facts[name] = outputs_of(case.references[name], files[name], threads)
    return facts, files


def ceiling_contenders(device: str, dtype: str) -> list[Contender]:
    """Return what measures the ceiling, each in a process of its own like the others."""
    return [
        Contender(name, f'{JOBS}:{job}', {**options, 'device': device, 'dtype': dtype}, ours=True)
        for name, (job, options) in CEILING.items()
    ]


def pair_table(pairs: Sequence[tuple[str, str]], runs: Runs) -> str:
    """Return a table of further ratios, of those pairs of contenders that were both measured; empty without one."""
    rows = []
    for one, other in pairs:
        if one in runs and other in runs:
            found = summarise([Contender(one, '', against=other)], {name: runs[name] for name in (one, other)})[one]
            spread = f'{found.ratio_low:.2f} to {found.ratio_high:.2f}'
            rows.append([f'{one} / {other}', f'{found.ratio:.3f}', f'{found.ratio_of_fastest:.3f}', spread])
    return table(['pair', 'ratio', 'of the fastest turns', 'turn by turn'], rows) if rows else ''


def section_name(name: str, args: argparse.Namespace) -> str:
    """Return the section's name on the page: one for each architecture, device and type of numbers."""
    usual = {'arch': ARCH, 'device': 'cpu', 'dtype': 'fp32'}
    unusual = [getattr(args, flag) for flag, value in usual.items() if getattr(args, flag, value) != value]
    return '-'.join([name, *unusual])


def closing(args: argparse.Namespace, place: str) -> str:
    """Return the lines that end a section: the command and the machine."""
    turns = f'{args.repeats} turns' if args.repeats > 1 else 'one turn'
    return (
        f'- Command: `{args.command}`: {turns} of each contender, each of at least {args.turn:g} s; '
        f'threads: {args.threads}\n- Machine: {place}'
    )


def here() -> str:
    """Return one line about the machine and the packages that are compared; ask before the measurement."""
    return machine(PACKAGES)

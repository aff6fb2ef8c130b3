"""The command of the benchmarks: ``tools/benchmark.py NAME [flags]``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmres2net.bench import evaluation, inference, loading, model, training
from mmres2net.bench.measure import MeasurementError
from mmres2net.bench.page import write_section
from mmres2net.bench.plot import draw
from mmres2net.errors import UserError

# Each has SUMMARY, add_flags(parser) and run(args), which returns a dict of results: `text` is its section of the page,
# `panels` and `label` its picture, and `section` the section's name where that is not the benchmark's.
BENCHMARKS = {
    'inference': inference, 'training': training, 'model': model, 'loading': loading, 'evaluation': evaluation
}  # fmt: skip
PLACES = ('--json', '--plot', '--page')
PICTURES = ('.png', '.svg', '.pdf')


def parser() -> argparse.ArgumentParser:
    """Return the flags of all benchmarks."""
    flags = argparse.ArgumentParser(prog='tools/benchmark.py', description='Measure, and write the page of results.')
    names = flags.add_subparsers(dest='name', required=True, metavar='NAME')
    for name, benchmark in BENCHMARKS.items():
        own = names.add_parser(name, help=benchmark.SUMMARY, description=benchmark.SUMMARY)
        benchmark.add_flags(own)
        own.add_argument('--json', metavar='FILE', type=Path, help='write all figures to this file')
        own.add_argument('--plot', metavar='FILE.png', type=Path, help='draw the ratios into this file')
        own.add_argument('--page', metavar='FILE.md', type=Path, help='renew the section of this page')
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark; return the exit status: 0, 1 where there are no figures, 2 for a mistake of the user."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    args.command = command(argv)
    try:
        if args.plot and args.plot.suffix not in PICTURES:
            raise UserError(f'--plot {args.plot}: choose a name that ends in one of {", ".join(PICTURES)}')
        results = BENCHMARKS[args.name].run(args)
    except (UserError, MeasurementError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    write(args, results)
    return 0


def write(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print the results, and write the files that the flags ask for."""
    print(results['text'])
    section = results.get('section', args.name)
    text = results['text']
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in results.items() if key != 'text'}
        args.json.write_text(json.dumps({'command': args.command, **kept}, indent=1), encoding='utf-8')
    if args.plot:
        draw(args.plot, results['panels'], results['label'])
    if args.page:
        if args.plot:
            link = Path(os.path.relpath(args.plot, args.page.parent)).as_posix()
            text += f'\n\n![{results["label"]}]({link})'
        write_section(args.page, section, text)


def command(argv: Sequence[str]) -> str:
    """Return the command line without the flags that say where results go."""
    kept: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in PLACES:
            next(rest, None)
        elif not word.startswith(tuple(f'{flag}=' for flag in PLACES)):
            kept.append(word)
    return shlex.join(['tools/benchmark.py', *kept])

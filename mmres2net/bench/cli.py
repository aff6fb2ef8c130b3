"""The command of the benchmarks: ``tools/benchmark.py NAME [flags]``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmres2net.bench import evaluation
from mmres2net.bench.page import write_section
from mmres2net.errors import UserError

# Each has SUMMARY, add_flags(parser) and run(args), which returns a dict of results whose `text` is its section.
BENCHMARKS = {'evaluation': evaluation}


def parser() -> argparse.ArgumentParser:
    """Return the flags of all benchmarks."""
    flags = argparse.ArgumentParser(prog='tools/benchmark.py', description='Measure, and write the page of results.')
    names = flags.add_subparsers(dest='name', required=True, metavar='NAME')
    for name, benchmark in BENCHMARKS.items():
        own = names.add_parser(name, help=benchmark.SUMMARY, description=benchmark.SUMMARY)
        benchmark.add_flags(own)
        own.add_argument('--json', metavar='FILE', type=Path, help='write all figures to this file')
        own.add_argument('--page', metavar='FILE.md', type=Path, help='renew the section of this page')
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark; return the exit status: 0, or 2 for a mistake that the user can mend."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    try:
        results = BENCHMARKS[args.name].run(args)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(results['text'])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({key: results[key] for key in results if key != 'text'}, indent=1))
    if args.page:
        write_section(args.page, args.name, results['text'])
    return 0

"""``python -m benchmarks``: measure, or write the page from the results."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.case import PRECISIONS, SUITES, Case
from benchmarks.contenders import contenders_of
from benchmarks.detectors import CONFIGS
from benchmarks.report import table, write_page
from benchmarks.runner import Limits, check_load, measure
from mmres2net.environment import granted_cores
from mmres2net.errors import UserError
from mmres2net.files import writable_file, write_atomic
from mmres2net.text import parse_size

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
SIZES = {'inference': '224x224', 'training': '320x320', 'step': '320x480', 'image': '320x480'}


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__, allow_abbrev=False)
    parts = flags.add_subparsers(dest='part', required=True, metavar='run|page')
    run = parts.add_parser('run', help='measure one suite and write its result', allow_abbrev=False)
    run.add_argument('suite', choices=SUITES, help='; '.join(f'{name}: {text}' for name, text in SUITES.items()))
    run.add_argument('--size', metavar='HxW', help=f'of the images; default: {SIZES}')
    run.add_argument('--batch', type=int, help='images per call; default: 2 in training, else 1')
    run.add_argument('--config', choices=CONFIGS, default=CONFIGS[0], help='of whole models; default: %(default)s')
    run.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    run.add_argument('--precision', choices=PRECISIONS, default='fp32', help='default: %(default)s; on a CPU also bf16')
    run.add_argument('--threads', type=int, default=max(int(granted_cores()), 1), help='default: %(default)s')
    run.add_argument('--turns', type=int, default=7, help='measurements per contender; default: %(default)s')
    run.add_argument('--seconds', type=float, default=1.0, help='of a turn at least; default: %(default)s')
    run.add_argument('--only', nargs='+', metavar='TEXT', help='contenders whose names contain one of these')
    run.add_argument('--allow-load', action='store_true', help='measure on a busy machine; the page will say so')
    run.add_argument('--out', type=Path, metavar='FILE', help='default: benchmarks/results/SUITE_SIZE.json')
    page = parts.add_parser('page', help='write docs/benchmarks.md from the results', allow_abbrev=False)
    page.add_argument('results', nargs='*', type=Path, metavar='FILE', help='default: all in benchmarks/results')
    page.add_argument('--page', type=Path, default=ROOT / 'docs' / 'benchmarks.md', metavar='FILE')
    return flags


def case_of(args: argparse.Namespace) -> Case:
    """Return the case of the flags, or raise UserError where a number is out of range."""
    for flag in ('threads', 'turns', 'seconds', 'batch'):
        value = getattr(args, flag)
        if value is not None and not 0 < value < 10**6:
            raise UserError(f'--{flag} {value}: choose a number above 0 and below a million')
    size = parse_size(args.size or SIZES[args.suite], least=32)
    default = 2 if args.suite in ('training', 'step') else 1
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU')
    if args.device == 'cpu' and args.precision in ('tf32', 'fp16'):
        raise UserError(f'--precision {args.precision} needs --device cuda')
    return Case(args.suite, size, args.batch or default, args.config, args.device, args.threads, args.precision)


def run(args: argparse.Namespace) -> None:
    case = case_of(args)
    contenders = every = contenders_of(case.suite, case.device)
    if args.only:
        contenders = {name: c for name, c in every.items() if any(text in name for text in args.only)}
        if not contenders:
            raise UserError(f'--only {" ".join(args.only)}: choose from {"; ".join(every)}')
    name = f'{case.config}_{case.suite}' if case.suite in ('step', 'image') else case.suite
    more = f'_{case.batch}_{case.precision}' if case.device == 'cuda' else ''
    out = args.out or RESULTS / f'{name}_{"x".join(map(str, case.size))}{more}_{case.device}.json'
    writable_file(out, '--out')
    check_load(args.allow_load)
    result = measure(case, contenders, Limits(args.turns, args.seconds), allow_load=args.allow_load)
    write_atomic(out, json.dumps(result, indent=1) + '\n')
    print(f'{table(result)}\nwritten: {out}')


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.part == 'run':
            run(args)
        else:
            write_page(args.results or sorted(RESULTS.glob('*.json')), args.page)
    except (UserError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())

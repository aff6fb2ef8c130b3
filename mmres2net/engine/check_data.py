"""``mmres2net check-data``: read everything that a config would read, and list what is wrong with it."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mmres2net.data.check.before import list_splits
from mmres2net.data.check.draw import draw_samples
from mmres2net.data.check.job import ERRORS, check_splits, verdict
from mmres2net.data.formats.base import Split
from mmres2net.data.layout import PARTS, datasets_of, point_at
from mmres2net.data.own.dataset import OwnData, is_own_data, recognize
from mmres2net.engine.config import load_config
from mmres2net.engine.own_data.flag import find_own
from mmres2net.engine.run import embed
from mmres2net.errors import UserError
from mmres2net.files import writable_dir
from mmres2net.flags import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Print a report on the data by the flags in ``argv``; return 1 if they have errors. A UserError: wrong flags."""
    args = parse('check-data', argv)
    splits = _own_splits(recognize(args.config), args) if is_own_data(args.config) else _prepare(args)
    folder = Path(args.out or Path('work_dirs') / 'check_data' / Path(args.config).resolve().stem)
    if args.samples:
        writable_dir(folder, '--out')
    reports = check_splits(splits)
    print('\n\n'.join(report.as_text(args.show) for report in reports) + '\n')
    if args.samples:
        drawn = sum(len(draw_samples(report, folder, args.samples)) for report in reports)
        print(f'{drawn} samples drawn: {folder}{os.sep}')
    print(verdict(reports))
    return int(any(report.count(ERRORS) for report in reports))


def _chosen(args: argparse.Namespace, there: Sequence[str]) -> list[str]:
    if absent := [part for part in args.splits or () if part not in there]:
        raise UserError(f'{args.config} has no data set for {", ".join(absent)}; it has {", ".join(there) or "none"}')
    return [part for part in there if part in (args.splits or there)]


def _own_splits(data: OwnData, args: argparse.Namespace) -> list[Split]:
    if is_own_data(args.config) and (args.data or args.cfg_options):
        raise UserError(f'{args.config} is no config: --data and --cfg-options are for configs')
    print('\n'.join(data.notes) + '\n')
    chosen = [data.splits[part].source for part in _chosen(args, list(data.splits))]
    return list({id(split): split for split in chosen}.values())  # one set may be read for two


def _prepare(args: argparse.Namespace) -> list[Split]:
    cfg = load_config(args.config, args.cfg_options)
    parts = _chosen(args, [part for part in PARTS if datasets_of(cfg, part)])
    if not parts:
        raise UserError(f'{args.config} has no data set for training, validation or test')
    if args.data:
        data = find_own(cfg, args.data, args.config, parts)
        if data is not None:
            return _own_splits(data, args)
        cfg = point_at(cfg, args.data, parts)
    elif cfg.get('embedded_data'):
        embed(cfg.embedded_data)
    return list_splits(cfg, parts)

"""``mmres2net check-data``: read everything that a config would read, and list what is wrong with it."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmres2net.data.check.before import list_splits
from mmres2net.data.check.draw import draw_samples
from mmres2net.data.check.job import check_splits
from mmres2net.data.check.report import ERRORS, verdict
from mmres2net.data.formats.base import Split
from mmres2net.data.layout import PARTS, datasets_of, point_at
from mmres2net.data.own.dataset import OwnData, is_own_data, recognize
from mmres2net.engine.config import load_config
from mmres2net.engine.own_data.flag import find_own
from mmres2net.engine.run import embed
from mmres2net.errors import UserError
from mmres2net.files import writable_dir, write_atomic
from mmres2net.flags import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Check the data by the flags in ``argv`` and print a report; return 1 if they have errors, else 0.

    Raises:
        UserError: A mistake in config or flags, or data that are not there at all.
    """
    args = parse('check-data', argv)
    file = Path(args.json) if args.json else None
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise UserError(f'--json {file}: not a file in a folder that exists')
    if file is not None:
        writable_dir(file.absolute().parent, '--json')
    cfg, splits = _own_splits(recognize(args.config), args) if is_own_data(args.config) else _prepare(args)
    folder = Path(args.out or Path('work_dirs') / 'check_data' / Path(args.config).resolve().stem)
    if args.samples:
        writable_dir(folder, '--out')
    reports = check_splits(splits, cfg, workers=args.workers)
    print('\n\n'.join(report.as_text(args.show) for report in reports) + '\n')
    if args.samples:
        drawn = sum(len(draw_samples(report, folder, args.samples)) for report in reports)
        print(f'{drawn} samples drawn: {folder}{os.sep}')
    errors = sum(report.count(ERRORS) for report in reports)
    if file is not None:
        content = {'config': args.config, 'errors': errors, 'splits': [report.as_dict() for report in reports]}
        write_atomic(file, json.dumps(content, indent=1) + '\n')
    print(verdict(reports))
    return int(errors > 0)


def _own_splits(data: OwnData, args: argparse.Namespace) -> tuple[Config, list[Split]]:
    """Return an empty config, and the splits of own data."""
    if is_own_data(args.config) and (args.data or args.cfg_options):
        raise UserError(f'{args.config} is no config: --data and --cfg-options are for configs')
    print('\n'.join(data.notes) + '\n')
    absent = [part for part in args.splits or () if part not in data.splits]
    if absent:
        raise UserError(f'{data.path} has no split {", ".join(absent)}; it has {", ".join(data.splits)}')
    chosen = [split.source for name, split in data.splits.items() if name in (args.splits or PARTS)]
    return Config(), list({id(split): split for split in chosen}.values())  # one set may be read for two


def _prepare(args: argparse.Namespace) -> tuple[Config, list[Split]]:
    """Return the config with its data in place, and the splits to check."""
    cfg = load_config(args.config, args.cfg_options)
    there = [part for part in PARTS if datasets_of(cfg, part)]
    absent = [part for part in args.splits or () if part not in there]
    if absent or not there:
        raise UserError(
            f'{args.config} has no data set for {", ".join(absent) or "training, validation or test"}; '
            f'it has {", ".join(there) or "none"}'
        )
    parts = [part for part in there if part in (args.splits or there)]
    if args.data:
        data = find_own(cfg, args.data, args.config, parts)
        if data is not None:
            return _own_splits(data, args)
        cfg = point_at(cfg, args.data, parts)
    elif cfg.get('embedded_data'):
        embed(cfg.embedded_data)
    return cfg, list_splits(cfg, parts)

"""``--backbone ARCH``: a run of any config with another backbone, kept apart from the runs of the config itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.engine.config import Change, load_config, without_weights, work_dir_of
from mmres2net.errors import UserError
from mmres2net.files import writable_file
from mmres2net.models.arch import ALIASES
from mmres2net.swap import explain_swap
from mmres2net.swap.options import is_old_option

RUN = '_as_run.py'


def load_swapped(args: argparse.Namespace, *, training: bool) -> Change:
    """Return the config of a run with its backbone swapped and its work dir set, and a line for each change.

    The work dir is that of the config with ``-ARCH`` appended, unless ``--work-dir`` names another: no run of the
    config itself is overwritten, and testing, which loads all weights from its checkpoint, finds what ``training``
    wrote. A UserError says that the config cannot be read, or its backbone not be swapped.
    """
    options: dict[str, Any] = args.cfg_options or {}
    # Options of the old backbone are set before the swap, which carries them over; those of the new one after it.
    inside = {key: key.split('.backbone.', 1)[1] for key in options if '.backbone.' in key}
    old = {key for key, option in inside.items() if is_old_option(option.split('.')[0])}
    cfg = load_config(args.config, {key: value for key, value in options.items() if key in old or key not in inside})
    scratch = training and args.from_scratch
    swapped, lines = explain_swap(cfg, args.backbone, pretrained=training and not scratch)
    try:
        swapped.merge_from_dict({key: value for key, value in options.items() if key not in old})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f'--cfg-options does not fit the swapped config: {error}') from error
    if scratch:  # here, so that the written file does not freeze random weights when it is run by itself
        swapped, more = without_weights(swapped)
        lines += [f'{line} (from scratch)' for line in more]
    arch = ALIASES.get(args.backbone, args.backbone)
    swapped.work_dir = args.work_dir or f'{work_dir_of(cfg, cfg.filename, None)}-{arch}'
    # MMEngine writes the config of a run, with all flags, to a file of this name: another one than write_config's.
    name = f'{Path(cfg.filename).stem}-{arch}{RUN}'
    return Config(swapped.to_dict(), cfg_text=swapped.text, filename=name), lines


def write_config(cfg: Config) -> Path:
    """Write a config that flags have changed (its name ends in :data:`RUN`) into its work dir; return the file."""
    path = writable_file(Path(cfg.work_dir) / (cfg.filename.removesuffix(RUN) + '.py'), '--work-dir')
    cfg.dump(path)
    return path

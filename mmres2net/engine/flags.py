"""The flags of training and testing. Nothing heavy is imported: help, and errors in flags, come at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

CONFIG = 'a config file, the name of a shipped config, or mmdet::NAME, mmseg::NAME, mmpretrain::NAME'
UNSAFE = '--allow-unsafe-checkpoint'
LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
PROFILE_STEPS = 20
STATUS = (
    'exit status: 0 done; 1 the run stopped after it began; 2 nothing was done, because a flag, the config, the data '
    'or a checkpoint has an error; 130 stopped by SIGINT (Ctrl-C), 143 by SIGTERM'
)


class OptionsAction(argparse.Action):
    """Collect KEY=VALUE settings into a dict, with values as MMEngine's ``DictAction`` reads them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        for pair in values:
            if '=' not in pair or pair.startswith('='):
                parser.error(f'--cfg-options {pair}: give KEY=VALUE, such as train_dataloader.batch_size=4')
        from mmengine.config import DictAction

        try:
            DictAction(self.option_strings, self.dest, nargs='+')(parser, namespace, values, option_string)
        except (AssertionError, ValueError, IndexError) as error:
            parser.error(f'--cfg-options {" ".join(values)}: {error}')


def whole(least: int) -> Callable[[str], int]:
    """Return a ``type`` for argparse: a whole number of ``least`` or more."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f'{text}: choose a whole number, {least} or more')
        return value

    return parse


def path(text: str) -> str:
    """Return ``text``; a ``type`` for argparse that refuses the empty text, which scripts give by mistake."""
    if not text.strip():
        raise argparse.ArgumentTypeError('the path is empty')
    return text


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, a dict after parsing."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help='settings that override the config, e.g. train_dataloader.batch_size=4',
    )


def add_unsafe(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets checkpoints run code."""
    parser.add_argument(
        UNSAFE,
        action='store_true',
        help='RUN THE CODE in a checkpoint that asks for it. Without this flag such files are refused; checkpoints '
        'trained here never need it. Only for files whose author you know and trust',
    )


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share."""
    parser.add_argument('config', type=path, help=CONFIG)
    parser.add_argument(
        '--work-dir',
        type=path,
        metavar='DIR',
        help='folder for logs, checkpoints, images; default: work_dirs/CONFIG[-ARCH]',
    )
    parser.add_argument(
        '--backbone',
        metavar='ARCH',
        help="replace the config's ResNet by this Res2Net, e.g. res2net50_26w_4s; all changes are printed",
    )
    parser.add_argument(
        '--data', type=path, metavar='DIR', help="folder of the data set, in the data set's standard layout"
    )
    parser.add_argument('--skip-data-check', action='store_true', help='do not check the data before the start')
    parser.add_argument('--plain', action='store_true', help='do not replace modules by faster ones on the CPU')
    parser.add_argument(
        '--profile',
        nargs='?',
        const=PROFILE_STEPS,
        type=whole(1),
        metavar='STEPS',
        help=f'print where the time of STEPS steps goes (default: {PROFILE_STEPS}) and stop; nothing is saved',
    )
    add_unsafe(parser)
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher; default: none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def flags_of_train(prog: str = 'mmres2net train') -> argparse.ArgumentParser:
    """Return the flags of training."""
    parser = argparse.ArgumentParser(
        prog=prog, description='Train a config of mmdet, mmseg or mmpretrain.', epilog=STATUS
    )
    add_common_flags(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate linearly with the total batch size'
    )
    parser.add_argument('--from-scratch', action='store_true', help='random initialization; unfreeze all layers')
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=path,
        metavar='CHECKPOINT',
        help='resume from CHECKPOINT, or from the latest one in the work dir',
    )
    start.add_argument(
        '--overwrite', action='store_true', help='delete the checkpoints that an earlier run left in the work dir'
    )
    return parser


def flags_of_test(prog: str = 'mmres2net test') -> argparse.ArgumentParser:
    """Return the flags of testing."""
    parser = argparse.ArgumentParser(
        prog=prog, description='Evaluate a checkpoint on the test split of its config.', epilog=STATUS
    )
    add_common_flags(parser)
    parser.add_argument('checkpoint', type=path, help='a checkpoint that was trained with this config')
    parser.add_argument(
        '--out', type=path, metavar='FILE.pkl', help='write the predictions to this file; masks as COCO RLE'
    )
    parser.add_argument(
        '--draw',
        type=whole(0),
        metavar='N',
        help='draw annotations beside predictions of the first N images; default: as the config says',
    )
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed flags, with the command line itself as ``argv``."""
    args = parser.parse_args(argv)
    args.argv = list(argv or ())
    return args

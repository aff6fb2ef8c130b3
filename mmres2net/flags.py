"""The flags of the verbs. Only the standard library is imported: help, and errors in flags, come at once.

Choices that are restated here are compared with their modules by a test.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

CONFIG = 'a config file, the name of a shipped config, or mmdet::NAME, mmseg::NAME, mmpretrain::NAME'
OWN_DATA = 'a folder of annotated images, a COCO file, or a data file (YAML)'
MODEL = 'a checkpoint, a work dir (its best checkpoint, else its newest), or an exported .onnx, .xml, .pt, .pt2 file'
UNSAFE = '--allow-unsafe-checkpoint'
TRAINED_DATA = 'data of your own that the checkpoint was trained on: class names and test images'
LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
LOG_STYLES = ('plain', 'rich')
PROFILE_STEPS = 20
AMP = ('auto', 'fp16', 'bf16')
DATA_SETS = (
    'coco', 'voc07', 'voc12', 'voc12aug', 'cifar100', 'imagenet', 'msra-b',
    'ecssd', 'pascal-s', 'hku-is', 'dut-omron',
)  # fmt: skip
BOX_FORMATS = ('coco', 'voc', 'yolo')
SPLITS = ('train', 'val', 'test')
FORMATS = ('onnx', 'openvino', 'torchscript', 'torch-export')
EXPORTED = ('whole', 'backbone')
PRECISIONS = ('fp16', 'bf16')
WEIGHT_FORMS = ('official', 'timm', 'mmdet', 'mmpretrain', 'mmres2net')
CAM_METHODS = ('gradcam', 'gradcam++', 'xgradcam', 'hirescam', 'layercam')
SWEEP_CONFIG, SWEEP_WIDTH = 'cifar100/resnext29_6c24w.py', 24
SWEEP_VALUES = {
    'cardinality': (6, 12, 18, 24, 30, 36),
    'depth': (29, 47, 74, 101, 128, 155),
    'scale': (1, 2, 3, 4, 5, 6),
}
STATUS = (
    'exit status: 0 done; 1 the run stopped after it began; 2 nothing was done, because a flag, the config, the data '
    'or a checkpoint has an error; 75 stopped by --max-minutes; 130 stopped by SIGINT (Ctrl-C), 143 by SIGTERM'
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


def minutes(text: str) -> float:
    """Return ``text`` as a number greater than 0; a ``type`` for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text}: choose a number greater than 0')
    return value


def batch(text: str) -> int | str:
    """Return ``auto`` or a whole number, 1 or more; a ``type`` for argparse."""
    return text if text == 'auto' else whole(1)(text)


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
        help='folder for logs, checkpoints, images; default: work_dirs/CONFIG[-ARCH][-FOLDER]',
    )
    parser.add_argument(
        '--backbone',
        metavar='ARCH',
        help="replace the config's ResNet by this Res2Net, e.g. res2net50_26w_4s; the log lists all changes",
    )
    parser.add_argument(
        '--data', type=path, metavar='PATH', help='the data: the standard layout of the config, or data of your own'
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
    parser.add_argument(
        '--log-style', choices=LOG_STYLES, help='one line that changes, or plain lines; default: rich on a terminal'
    )
    parser.add_argument('--seed', type=whole(0), metavar='N', help="random seed; default: the config's")
    text = 'two runs are equal bit for bit; an operation that cannot be ends the run'
    parser.add_argument('--deterministic', action='store_true', help=text)
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
    text = 'automatic mixed precision; default: fp16 on a GPU, bf16 on a CPU'
    parser.add_argument('--amp', nargs='?', const='auto', choices=AMP, metavar='fp16|bf16', help=text)
    parser.add_argument('--ema', action='store_true', help='average the weights of the last steps, and evaluate these')
    text = 'stop after N evaluations without a better value of the metric of save_best'
    parser.add_argument('--early-stop', type=whole(1), metavar='N', help=text)
    text = 'images of a batch; auto: as many as fit in memory, at most those that the learning rate is for'
    parser.add_argument('--batch', type=batch, metavar='N|auto', help=text)
    text = 'stop with a checkpoint after M minutes, for --resume'
    parser.add_argument('--max-minutes', type=minutes, metavar='M', help=text)
    parser.add_argument('--tensorboard', action='store_true', help='write losses and metrics for TensorBoard')
    parser.add_argument('--wandb', action='store_true', help='write losses and metrics to Weights & Biases')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate linearly with the total batch size'
    )
    parser.add_argument('--from-scratch', action='store_true', help='random initialization; unfreeze all layers')
    text = 'with data of your own: keep epochs, learning rate and evaluations of the config'
    parser.add_argument('--keep-schedule', action='store_true', help=text)
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
    parser.add_argument('--tta', action='store_true', help='test-time augmentation: average over flipped images')
    parser.add_argument(
        '--draw',
        type=whole(0),
        metavar='N',
        help='draw annotations beside predictions of N images, the best and the worst; default: as the config says',
    )
    return parser


def flags_of_check_data(prog: str = 'mmres2net check-data') -> argparse.ArgumentParser:
    """Return the flags of the check."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Read all data of a config or a folder: list what is wrong, count what is there, draw samples.',
        epilog='exit status: 0 without errors (notes are fine), 1 with errors in the data, 2 where nothing was checked',
    )
    flags.add_argument('config', type=path, help=f'{OWN_DATA}; or {CONFIG}')
    flags.add_argument(
        '--data', type=path, metavar='PATH', help='the data: the standard layout of the config, or data of your own'
    )
    flags.add_argument('--splits', nargs='+', choices=SPLITS, metavar='SPLIT', help='of train, val, test; default: all')
    flags.add_argument(
        '--show', type=whole(0), default=5, metavar='N', help='findings of each kind to list; default: 5'
    )
    flags.add_argument(
        '--samples', type=whole(0), default=8, metavar='N', help='images to draw of each split; default: 8'
    )
    flags.add_argument(
        '--out', type=path, metavar='DIR', help='folder of the drawings; default: work_dirs/check_data/CONFIG'
    )
    flags.add_argument('--json', type=path, metavar='FILE', help='write all counts and findings to this file')
    flags.add_argument(
        '--workers', type=whole(1), metavar='N', help='threads that read; default: one a core, at most 16'
    )
    add_cfg_options(flags)
    return flags


def flags_of_convert_data(prog: str = 'mmres2net convert-data') -> argparse.ArgumentParser:
    """Return the flags of the conversion."""
    flags = argparse.ArgumentParser(prog=prog, description='Write boxes and masks of objects in another format.')
    flags.add_argument('path', type=path, help=OWN_DATA)
    flags.add_argument('--to', choices=BOX_FORMATS, required=True, help='the format; VOC holds boxes alone')
    flags.add_argument('--out', type=path, metavar='DIR', help='a new folder; default: NAME-FORMAT in the current one')
    images = flags.add_mutually_exclusive_group()
    images.add_argument('--copy', action='store_true', help='copy the images')
    images.add_argument('--link', action='store_true', help='link to the images (symbolic links); the default')
    return flags


def flags_of_prepare_data(
    prog: str = 'mmres2net prepare-data', names: Iterable[str] = DATA_SETS
) -> argparse.ArgumentParser:
    """Return the flags of the command for the data sets ``names``."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Fetch a public data set, check it, and put it where the configs read it. '
        'After an interruption, run the same command again: it resumes.',
    )
    flags.add_argument('dataset', choices=list(names))
    flags.add_argument(
        '--root', type=Path, default=Path('data'), metavar='DIR', help='folder of the data sets (default: %(default)s)'
    )
    flags.add_argument(
        '--from',
        dest='source',
        type=Path,
        metavar='DIR',
        help='use the archives, or files that have to be fetched by hand, in DIR; it is only read',
    )
    flags.add_argument('--remove-archives', action='store_true', help='remove downloads once they are unpacked')
    flags.add_argument('--dry-run', action='store_true', help='print what would be done, and the URLs')
    return flags


def flags_of_export(prog: str = 'mmres2net export') -> argparse.ArgumentParser:
    """Return the flags of the command."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Write a model as a file for another runtime, and compare the file with the model.',
        epilog='Exit status: 0, 1 if the file does not compute what the model computes, 2 if nothing was written. '
        'Backbones, classifiers and segmentors take batches, detectors one image at a time.',
    )
    flags.add_argument('config', type=path, help=CONFIG)
    flags.add_argument(
        'checkpoint', nargs='?', help='a checkpoint of this config; for classifiers also the name of published weights'
    )
    flags.add_argument(
        '--to', choices=FORMATS, required=True, help='the format; torchscript and torch-export files are programs'
    )
    flags.add_argument('--out', metavar='FILE', help='default: CONFIG[-backbone].SUFFIX in the current folder')
    flags.add_argument('--overwrite', action='store_true', help='replace an existing file')
    flags.add_argument('--part', choices=EXPORTED, help='default: whole where it is supported, else backbone')
    flags.add_argument('--size', metavar='HxW', help='image size of the comparison; default: as in testing')
    flags.add_argument('--fixed', action='store_true', help='accept only images of --size, not of any size')
    flags.add_argument('--images', nargs='+', default=[], metavar='PATH', help='images or folders for the comparison')
    flags.add_argument('--data', type=path, metavar='PATH', help=TRAINED_DATA)
    flags.add_argument('--tolerance', type=float, default=1e-3, metavar='T', help='default: %(default)s')
    flags.add_argument('--random', action='store_true', help='export random weights, for a trial')
    add_unsafe(flags)
    add_cfg_options(flags)
    return flags


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verbs that predict: how a model is run."""
    parser.add_argument(
        '--device', type=path, help='where a checkpoint runs, such as cuda:1 or cpu; default: a GPU if there is one'
    )
    parser.add_argument(
        '--amp', choices=PRECISIONS, help='mixed precision in backbone and neck of a checkpoint; fp16 needs a GPU'
    )
    parser.add_argument('--threads', type=whole(1), metavar='N', help="threads on the CPU; default: the runtime's")
    add_unsafe(parser)


def flags_of_predict(prog: str = 'mmres2net predict') -> argparse.ArgumentParser:
    """Return the flags of the command."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Predict with a checkpoint, or with an exported file, which needs no OpenMMLab library.',
        epilog='.pt and .pt2 files are programs: open them only if you trust their source. Exit status: 0, 1 if images '
        'were broken and skipped, 2 if nothing was predicted; after Ctrl-C (130) --out holds what was done.',
    )
    flags.add_argument('model', type=path, help=MODEL)
    flags.add_argument(
        'inputs',
        nargs='+',
        type=path,
        metavar='INPUT',
        help="images, videos, folders with subfolders, patterns such as 'photos/*.jpg', or the number of a camera",
    )
    flags.add_argument('--config', type=path, help=f'{CONFIG}; default: the config that the checkpoint holds')
    flags.add_argument(
        '--out',
        type=path,
        metavar='DIR',
        help='write drawn images and videos into this folder; of a detector predictions.json (COCO), of a segmentor '
        'NAME_labels.png or NAME_saliency.png, of a classifier predictions.csv. Existing files are replaced, which is '
        'reported',
    )
    flags.add_argument(
        '--ann',
        type=path,
        metavar='FILE',
        help='a COCO annotation file: predictions.json gets its ids and the form of COCO results, without --score with '
        'all detections, as metrics need them',
    )
    flags.add_argument('--score', type=float, metavar='S', help='drop detections below it; default: 0.3')
    flags.add_argument('--batch', type=whole(1), default=1, metavar='N', help='images at a time; default: 1')
    flags.add_argument('--json', action='store_true', help='print a JSON object for each image instead of text')
    add_model_flags(flags)
    add_cfg_options(flags)
    return flags


def flags_of_serve(prog: str = 'mmres2net serve') -> argparse.ArgumentParser:
    """Return the flags of the command."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Serve a page on which an image is dropped and predictions are drawn, of two models side by side.',
        epilog='Exit status: 0 when it is stopped by Ctrl-C, 2 if it could not start.',
    )
    flags.add_argument('models', nargs='+', type=path, metavar='MODEL', help=f'one or two: {MODEL}')
    flags.add_argument(
        '--config', nargs='+', type=path, default=[], metavar='CONFIG', help='of each checkpoint, in their order'
    )
    flags.add_argument(
        '--host', default='127.0.0.1', help='address to serve on; other machines reach 0.0.0.0; default: %(default)s'
    )
    flags.add_argument('--port', type=whole(0), default=7860, metavar='N', help='default: %(default)s; 0: a free one')
    add_model_flags(flags)
    return flags


def flags_of_cam(prog: str = 'mmres2net cam') -> argparse.ArgumentParser:
    """Return the flags of the command."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Draw which regions of an image support a class (Grad-CAM), for one or more networks side by side.',
        epilog='Exit status: 0, 1 if images are broken and skipped, 2 if nothing was drawn.',
    )
    flags.add_argument('config', type=path, help=CONFIG)
    flags.add_argument(
        'checkpoint',
        nargs='?',
        help='a checkpoint of this config; for classifiers also published weights by name',
    )
    # A flag, because the end of a list of images could not be told from CONFIG [CHECKPOINT].
    text = 'images, or folders with subfolders; default: test images of --data'
    flags.add_argument('--images', nargs='+', default=[], metavar='PATH', help=text)
    flags.add_argument('--data', type=path, metavar='PATH', help=TRAINED_DATA)
    flags.add_argument(
        '--against',
        nargs='+',
        action='append',
        default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help='another network, drawn to the right; can be given several times',
    )
    flags.add_argument('--class', dest='name', metavar='C', help='name or index; default: what each network predicts')
    flags.add_argument('--layer', help="name of a layer; default: the last stage of each network's backbone")
    flags.add_argument('--method', choices=CAM_METHODS, default='gradcam', help='default: %(default)s')
    flags.add_argument(
        '--whole-map', action='store_true', help='explain a segmentor at all pixels, not only at those of the class'
    )
    flags.add_argument(
        '--out', metavar='DIR', default='cam', help='folder of the images; existing ones are replaced; default: cam'
    )
    flags.add_argument('--arrays', action='store_true', help='also write the maps as arrays, a .npz beside each image')
    flags.add_argument('--device', default='cpu', help='where the networks run, such as cuda:1; default: %(default)s')
    flags.add_argument('--random', action='store_true', help='random weights where no checkpoint is named, for a trial')
    add_unsafe(flags)
    add_cfg_options(flags)
    return flags


def flags_of_sweep(prog: str = 'mmres2net sweep') -> argparse.ArgumentParser:
    """Return the flags of both parts."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Figure 4 of the paper: test accuracy on CIFAR-100 by the size of the network, for cardinality, '
        'depth and scale, each varied alone.',
    )
    parts = flags.add_subparsers(dest='part', required=True, metavar='run|draw')
    run = parts.add_parser('run', help='train the networks one after another; finished runs are skipped')
    run.add_argument('--out', default='work_dirs/sweep', metavar='DIR', help='folder of all runs; default: %(default)s')
    run.add_argument('--data', metavar='DIR', help="folder in the data set's standard layout")
    run.add_argument(
        '--config', default=SWEEP_CONFIG, help='config of the network that is varied; default: %(default)s'
    )
    run.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
    axes = list(SWEEP_VALUES)
    run.add_argument('--axes', nargs='+', choices=axes, default=axes, metavar='AXIS', help='default: all')
    for axis, values in SWEEP_VALUES.items():
        text = f'the smallest is the baseline; default: {" ".join(map(str, values))}'
        run.add_argument(f'--{axis}', nargs='+', type=int, default=list(values), metavar='N', help=text)
    run.add_argument(
        '--width', type=int, default=SWEEP_WIDTH, metavar='N', help='channels of a group; default: %(default)s'
    )
    run.add_argument('--dry-run', action='store_true', help='list the runs with size and state, and start none')
    run.add_argument('--amp', action='store_true', help='as in training')
    run.add_argument('--plain', action='store_true', help='as in training')
    run.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='settings for all runs')
    draw = parts.add_parser('draw', help='draw finished runs and write their table')
    draw.add_argument('folders', nargs='+', metavar='WORK_DIR', help='the --out of a sweep, or work dirs of runs')
    draw.add_argument('--figure', type=path, metavar='FILE', help='default: figure4.png in the first WORK_DIR')
    text = 'draw the best epoch of each run, chosen by the test images themselves, instead of the last'
    draw.add_argument('--best', action='store_true', help=text)
    return flags


def flags_of_complexity(prog: str = 'mmres2net complexity') -> argparse.ArgumentParser:
    """Return the flags of the command."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Count parameters, multiply-adds and activations from shapes alone; nothing is computed.',
        epilog='Exit status: 0, or 2 if something cannot be counted.',
    )
    flags.add_argument(
        'names', nargs='+', metavar='ARCH_OR_CONFIG', help='such as res2net50_26w_4s, a config, or LIBRARY::NAME'
    )
    flags.add_argument('--size', metavar='HxW', help='image size; default: as in testing (ARCH: 224x224, or 32x32)')
    flags.add_argument('--json', metavar='FILE', help='write the exact numbers to this file')
    return flags


def flags_of_convert_weights(prog: str = 'mmres2net convert-weights') -> argparse.ArgumentParser:
    """Return the flags of the conversion."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Convert the Res2Net in a checkpoint for another library. The library it is from is recognised.',
        epilog='Exit status: 0, or 2 if nothing was written.',
    )
    flags.add_argument('source', metavar='SRC', help='a .pth, .pt or .safetensors file')
    flags.add_argument('target', metavar='DST', help='the file to write, with one of these suffixes')
    flags.add_argument(
        '--to', choices=WEIGHT_FORMS, default='mmres2net', help='library to write for; default: mmres2net'
    )
    flags.add_argument('--key', help='key of the weights in SRC; default: an average (state_dict_ema), else state_dict')
    flags.add_argument('--prefix', help="prefix of the network's parameter names, such as teacher.backbone.")
    flags.add_argument('--backbone-only', action='store_true', help='leave out classifier, neck and heads')
    flags.add_argument('--strip-optimizer', action='store_true', help='leave out what --resume would need')
    flags.add_argument('--verify', action='store_true', help="first compare features with the libraries' own code")
    flags.add_argument('--force', action='store_true', help='overwrite DST')
    add_unsafe(flags)
    return flags

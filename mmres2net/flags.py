"""The flags of the verbs. Only the standard library is imported: help, and errors in flags, come at once.

:data:`VERBS` has what a verb does, its flags and a last remark. A flag is a line, much as help prints it: name,
argument and, behind two blanks, what it is for. An argument ``[X]`` may be left out, ``X...`` is one or more, ``{a,b}``
are the choices, ``X:5`` has a default, ``X!`` is required; flags behind ``|`` exclude each other. :data:`ARGUMENTS` has
the types.

Choices that are restated here are compared with their modules by a test.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

UNSAFE = '--allow-unsafe-checkpoint'
DATA_SETS = (
    'coco', 'voc07', 'voc12', 'voc12aug', 'cifar100', 'imagenet', 'msra-b', 'ecssd', 'pascal-s', 'hku-is', 'dut-omron',
)  # fmt: skip
SPLITS = ('train', 'val', 'test')
FORMATS = ('onnx', 'openvino', 'torchscript', 'torch-export')
EXPORTED = ('whole', 'backbone')
PRECISIONS = ('fp16', 'bf16')
REQUIRABLE = ('mmdet', 'mmseg', 'mmpretrain', 'cuda', 'gpu', 'compiled-ops')
WEIGHT_FORMS = ('official', 'timm', 'mmdet', 'mmpretrain', 'mmres2net')
CAM_METHODS = ('gradcam', 'gradcam++', 'xgradcam', 'hirescam', 'layercam')
SWEEP_CONFIG, SWEEP_WIDTH = 'cifar100/resnext29_6c24w.py', 24
SWEEP_VALUES = {
    'cardinality': (6, 12, 18, 24, 30, 36), 'depth': (29, 47, 74, 101, 128, 155), 'scale': (1, 2, 3, 4, 5, 6),
}  # fmt: skip


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
        except (AssertionError, ValueError, IndexError, RecursionError) as error:  # the last for dict(a=1)
            way = 'give text, numbers or lists of these, and each key of a dict by itself, as a.b=1'
            parser.error(f'--cfg-options {" ".join(values)}: {error}; {way}')


def number(kind: Callable[[str], float], fits: Callable[[Any], bool], words: str) -> Callable[[str], float]:
    """Return a ``type`` for argparse: a number of a ``kind`` that ``fits``, which is said in ``words``."""

    def read(text: str) -> float:
        with suppress(ValueError):
            if fits(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f'{text}: choose {words}')

    return read


def path(text: str) -> str:
    """Return ``text``; a ``type`` for argparse that refuses the empty text, which scripts give by mistake."""
    if not text.strip():
        raise argparse.ArgumentTypeError('the path is empty')
    return text


def every(text: str) -> tuple[int, str]:
    """Return a number and its unit, steps (``it``) or minutes (``min``); a ``type`` for argparse."""
    if (found := re.fullmatch(r'0*([1-9]\d{0,8})(it|min)', text)) is None:
        raise argparse.ArgumentTypeError(f'{text}: choose steps, such as 500it, or minutes, such as 10min')
    return int(found[1]), found[2]


def _choices(names: Iterable[str]) -> str:
    return f'{{{",".join(names)}}}'


def shard(text: str) -> tuple[int, int]:
    """Return I and N of ``I/N``; a ``type`` for argparse."""
    match = re.fullmatch(r'(\d{1,9})/(\d{1,9})', text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f'{text}: choose I/N with I from 0 to N - 1, such as 0/256')
    return int(match[1]), int(match[2])


POSITIVE = number(int, lambda value: value >= 1, 'a whole number, 1 or more')
PATHS = ('CHECKPOINT', 'CONFIG', 'DEVICE', 'DIR', 'FILE', 'FILE.pkl', 'INPUT', 'MODEL', 'PATH')
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {'type': path} for name in (*PATHS, 'checkpoint', 'config', 'model', 'path')},
    **{name: {'type': POSITIVE} for name in ('N', 'STEPS')},
    'N>=0': {'type': number(int, lambda value: value >= 0, 'a whole number, 0 or more'), 'metavar': 'N'},
    'N>=200': {'type': number(int, lambda value: value >= 200, 'a whole number, 200 or more'), 'metavar': 'N'},
    'INT': {'type': int, 'metavar': 'N'},
    'N|auto': {'type': lambda text: text if text == 'auto' else POSITIVE(text)},
    'I/N': {'type': shard},
    'M': {'type': number(float, lambda value: 0 < value < float('inf'), 'a number greater than 0')},
    'EVERY': {'type': every, 'metavar': 'N{it,min}'},
    **{name: {'type': float} for name in ('S', 'T')},
    'C': {'dest': 'name'},
    'KEY=VALUE': {'action': OptionsAction, 'default': None},
    'SETTING': {'metavar': 'KEY=VALUE'},
    'NETWORK': {'action': 'append', 'metavar': ('CONFIG', 'CHECKPOINT')},
    'ROOT': {'type': Path, 'metavar': 'DIR'},
    'SHAPES': {'type': Path, 'nargs': '?', 'default': Path('data/shapes'), 'metavar': 'ROOT'},
    'SOURCE': {'type': Path, 'metavar': 'DIR', 'dest': 'source'},
    'fp16|bf16': {'choices': ('auto', *PRECISIONS)},
    'SPLIT': {'choices': SPLITS},
    'AXIS': {'choices': tuple(SWEEP_VALUES)},
}

CONFIG = 'a config file, the name of a shipped config, or mmdet::NAME, mmseg::NAME, mmpretrain::NAME'
OWN_DATA = 'a folder of annotated images, a COCO file, or a data file (YAML)'
MODEL = 'a checkpoint, a work dir (its best checkpoint, else its newest), or an exported .onnx, .xml, .pt, .pt2 file'
STATUS = (
    'Exit status: 0 done; 1 it stopped after it began, a check found errors, or broken images were skipped; 2 nothing '
    'was done, because a flag, a config, data or a file has an error; 75 stopped by --max-minutes, SIGUSR1 or SIGUSR2, '
    'to be resumed; 130 stopped by Ctrl-C, 143 by SIGTERM.'
)
DATA = '--data PATH  the data: the standard layout of the config, or data of your own'
TRAINED_DATA = '--data PATH  data of your own that the checkpoint was trained on: class names and test images'
OPTIONS = '--cfg-options KEY=VALUE...  settings that override the config, e.g. train_dataloader.batch_size=4'
TRUST = f"""{UNSAFE}  RUN THE CODE in a checkpoint that asks for it. Without this flag such files are refused;
    checkpoints trained here never need it. Only for files whose author you know and trust"""
COMMON = f"""config  {CONFIG}
--work-dir DIR  folder for logs, checkpoints, images; default: work_dirs/CONFIG[-ARCH][-FOLDER]
--backbone ARCH  replace the config's ResNet by this Res2Net, e.g. res2net50_26w_4s; the log lists all changes
{DATA}
--skip-data-check  do not check the data before the start
--plain  do not replace modules by faster ones on the CPU
--profile [STEPS:20]  print where the time of STEPS steps goes (default: 20) and stop; nothing is saved
--log-style {{plain,rich}}  one line that changes, or plain lines; default: rich on a terminal
--seed N>=0  random seed; default: the config's
--deterministic  two runs are equal bit for bit; an operation that cannot be ends the run
{TRUST}
{OPTIONS}
--launcher {{none,pytorch,slurm,mpi}}:none  job launcher; default: none
--local_rank INT:0"""
RUNTIME = f"""--device DEVICE  where a checkpoint runs, such as cuda:1 or cpu; default: a GPU if there is one
--amp {_choices(PRECISIONS)}  mixed precision in backbone and neck of a checkpoint; fp16 needs a GPU
--threads N  threads on the CPU; default: the runtime's
{TRUST}"""
AXES = '\n'.join(
    f'--{axis} INT...:{" ".join(map(str, values))}  the smallest is the baseline; default: {" ".join(map(str, values))}'
    for axis, values in SWEEP_VALUES.items()
)
# What a verb does, its flags, and what help ends with.
VERBS = {
    'train': f"""Train a config of mmdet, mmseg or mmpretrain.

{COMMON}
--amp [fp16|bf16:auto]  automatic mixed precision; default: fp16 on a GPU, bf16 on a CPU
--ema  average the weights of the last steps, and evaluate these
--early-stop N  stop after N evaluations without a better value of the metric of save_best
--batch N|auto  images of a batch; auto: as many as fit in memory, at most those that the learning rate is for
--max-minutes M  stop with a checkpoint after M minutes, for --resume
--checkpoint-every EVERY  also save last.pth after N steps (500it) or minutes (10min)
--tensorboard  write losses and metrics for TensorBoard
--wandb  write losses and metrics to Weights & Biases
--auto-scale-lr  scale the learning rate linearly with the total batch size
--from-scratch  random initialization; unfreeze all layers
--keep-schedule  with data of your own: keep epochs, learning rate and evaluations of the config
| --resume [CHECKPOINT:auto]  resume from CHECKPOINT, or from the latest one in the work dir
| --overwrite  delete the checkpoints that an earlier run left in the work dir""",
    'test': f"""Evaluate a checkpoint on the test split of its config.

{COMMON}
checkpoint  a checkpoint that was trained with this config
--out FILE.pkl  write the predictions to this file; masks as COCO RLE
--tta  test-time augmentation: average over flipped images
--draw N>=0  draw annotations beside predictions of N images, the best and the worst; default: as the config says""",
    'check-data': f"""Read all data of a config or a folder: list what is wrong, count what is there, draw samples.

config  {OWN_DATA}; or {CONFIG}
{DATA}
--splits SPLIT...  of train, val, test; default: all
--show N>=0:5  findings of each kind to list; default: %(default)s
--samples N>=0:8  images to draw of each split; default: %(default)s
--out DIR  folder of the drawings; default: work_dirs/check_data/CONFIG
{OPTIONS}""",
    'convert-data': f"""Write boxes and masks of objects in another format.

path  {OWN_DATA}
--to {{coco,voc,yolo}}!  the format; VOC holds boxes alone
--out DIR  a new folder; default: NAME-FORMAT in the current one
| --copy  copy the images
| --link  link to the images (symbolic links); the default""",
    'prepare-data': f"""Fetch a public data set, check it, and put it where the configs read it.
    After an interruption, run the same command again: it resumes.

dataset {_choices(DATA_SETS)}  the data set
--root ROOT:data  folder of the data sets (default: %(default)s)
--from SOURCE  use the archives, or files that have to be fetched by hand, in DIR; it is only read""",
    'export': f"""Write a model as a file for another runtime, and compare the file with the model.

config  {CONFIG}
checkpoint [checkpoint]  a checkpoint of this config; for classifiers also the name of published weights
--to {_choices(FORMATS)}!  the format; torchscript and torch-export files are programs
--out FILE  default: CONFIG[-backbone].SUFFIX in the current folder
--overwrite  replace an existing file
--part {_choices(EXPORTED)}:whole  default: %(default)s
--size HxW  image size of the comparison; default: as in testing
--images PATH...  images or folders for the comparison
{TRAINED_DATA}
--tolerance T:0.001  default: %(default)s
--int8  8-bit integers in convolutions; calibrated on training images, its drop of the metric measured on test images
--max-drop T  the largest drop of an --int8 file that is written, in fractions of 1; default: 0.003
--random  export random weights, for a trial
{TRUST}
{OPTIONS}

Backbones, classifiers and segmentors take batches, detectors one image at a time.""",
    'predict': f"""Predict with a checkpoint, or with an exported file, which needs no OpenMMLab library.

model  {MODEL}
inputs INPUT...  images, videos, folders with subfolders, patterns such as 'photos/*.jpg', or the number of a camera
--config CONFIG  {CONFIG}; default: the config that the checkpoint holds
--out DIR  write drawn images and videos into this folder; of a detector predictions.json (COCO), of a segmentor
    NAME_labels.png or NAME_saliency.png, of a classifier predictions.csv. Existing files are replaced, which is
    reported
--ann FILE  a COCO annotation file: predictions.json gets its ids and the form of COCO results, without --score with
    all detections, as metrics need them
--score S  drop detections below it; default: 0.3
--batch N:1  images at a time; default: %(default)s
--json  print a JSON object for each image instead of text
| --shard I/N  predict the images I, I + N, ... alone, with I from 0 to N - 1, and write them into parts of --out DIR
    without drawing; run again, it continues. mmres2net merge DIR makes one file of all shards
| --ray N  predict all images so, by N workers of a Ray cluster, or of this machine
{RUNTIME}
{OPTIONS}

.pt and .pt2 files are programs: open them only if you trust their source. After Ctrl-C --out holds what was done.""",
    'merge': """Check that all parts of mmres2net predict --shard or --ray are there, and make one file of them.

folder DIR  their --out; gets predictions.json, .csv or .jsonl, and failed.txt with the broken images""",
    'submit': """Train or test as a job of a Slurm cluster. It is resumed when it was preempted or its time is up.
    The flags of the verb stand among these.

verb {train,test}  what to run
--nodes N:1  machines; default: %(default)s
--gpus-per-node N>=0:1  GPUs of each machine, a process for each; default: %(default)s
--tasks-per-node N  processes of each machine; default: one for each GPU
--cpus-per-task N:4  cores of each process; default: %(default)s
--partition P  the partition of the cluster
--hours M:24  the time that the job asks for; default: %(default)s
--job-dir DIR:jobs  folder of scripts and logs; default: %(default)s
--cluster {slurm,local}:slurm  local: run on this machine, for a trial""",
    'serve': f"""Serve a page on which an image is dropped and predictions are drawn, of two models side by side.

models MODEL...  one or two: {MODEL}
--config CONFIG...  of each checkpoint, in their order
--host HOST:127.0.0.1  address to serve on; other machines reach 0.0.0.0; default: %(default)s
--port N>=0:7860  default: %(default)s; 0: a free one
{RUNTIME}""",
    'cam': f"""Draw which regions of an image support a class (Grad-CAM), for one or more networks side by side.

config  {CONFIG}
checkpoint [checkpoint]  a checkpoint of this config; for classifiers also published weights by name
--images PATH...  images, or folders with subfolders; default: test images of --data
{TRAINED_DATA}
--against NETWORK...  another network, drawn to the right; can be given several times
--class C  name or index; default: what each network predicts
--layer LAYER  name of a layer; default: the last stage of each network's backbone
--method {_choices(CAM_METHODS)}:gradcam  default: %(default)s
--out DIR:cam  folder of the images; existing ones are replaced; default: %(default)s
--device DEVICE:cpu  where the networks run, such as cuda:1; default: %(default)s
{TRUST}
{OPTIONS}""",
    'compare': f"""Compare runs on the same images: differences of all metrics with intervals, and a report.

runs RUN...  two sides or more, the first one is the reference. A RUN is the work dir of a training (its last
    checkpoint) or of a test, or CONFIG:CHECKPOINT; NAME=RUN names a side, NAME=RUN,RUN,RUN are seeds of one config
--out DIR  folder of the report; default: work_dirs/A-vs-B
--data PATH  the data: the standard layout of the configs, or data of your own
--samples N>=200:2000  replicates of the bootstrap; default: %(default)s
--seed N>=0:0  of the bootstrap; default: %(default)s
--no-cost  do not measure time and memory
{TRUST}""",
    'sweep': """Figure 4 of the paper: accuracy on CIFAR-100 by the size of the network, for cardinality, depth and
    scale, each varied alone. Networks of equal size are drawn by the scale itself.

""",
    'sweep run': f"""train the networks one after another; finished runs are skipped

--out DIR:work_dirs/sweep  folder of all runs; default: %(default)s
--data DIR  folder in the data set's standard layout
--config CONFIG:{SWEEP_CONFIG}  config of the network that is varied; default: %(default)s
--seeds INT...:0 1 2  default: 0 1 2
--axes AXIS...:{' '.join(SWEEP_VALUES)}  default: all
{AXES}
--width INT:{SWEEP_WIDTH}  channels of a group; default: %(default)s
--dry-run  list the runs with size and state, and start none
--amp  as in training
--plain  as in training
--cfg-options SETTING...  settings for all runs""",
    'sweep draw': """draw finished runs and write their table

folders WORK_DIR...  the --out of a sweep, or work dirs of runs
--figure FILE  default: figure4.png in the first WORK_DIR; the points are in figure4.json beside it""",
    'complexity': """Count parameters, multiply-adds and activations from shapes alone; nothing is computed.

names ARCH_OR_CONFIG...  such as res2net50_26w_4s, a config, or LIBRARY::NAME
--size HxW  image size; default: as in testing (ARCH: 224x224, or 32x32)
--json FILE  write the exact numbers to this file""",
    'doctor': f"""Check the versions, operators, GPUs, registries and folders of this environment.

--require {_choices(REQUIRABLE)}...  fail without""",
    'demo-data': """Make the embedded data set "shapes" in COCO, VOC and saliency layout.

root SHAPES  folder; default: %(default)s
--train INT:400  training images; default: %(default)s
--val INT:100  validation images; default: %(default)s
--seed INT:0  seed of the images; default: %(default)s""",
    'convert-weights': f"""Convert the Res2Net in a checkpoint for another library.
    The library it is from is recognised.

source SRC  a .pth, .pt or .safetensors file
target DST  the file to write, with one of these suffixes
--to {_choices(WEIGHT_FORMS)}:mmres2net  library to write for; default: %(default)s
--key KEY  key of the weights in SRC; default: an average (state_dict_ema), else state_dict
--prefix PREFIX  prefix of the network's parameter names, such as teacher.backbone.
--backbone-only  leave out classifier, neck and heads
--force  overwrite DST
{TRUST}""",
}
LINE = re.compile(r'^(\| )?(\S+)(?: (\S.*?))?(?:  (.+))?$', re.MULTILINE)
ARGUMENT = re.compile(r'(\[?)([^:]+?)(\.\.\.)?(?::([^\]]*))?\]?(!?)')


def parse(verb: str, argv: Sequence[str] | None, *, prog: str = '') -> argparse.Namespace:
    """Return the flags of ``verb`` in ``argv``, by default those of the process; mistakes end it, as argparse does.

    ``prog`` is the command in the text of help, by default ``mmres2net VERB``.
    """
    parser = argparse.ArgumentParser(prog=prog or f'mmres2net {verb}')
    _fill(parser, verb)
    if verb == 'sweep':
        parts = parser.add_subparsers(dest='part', required=True, metavar='run|draw')
        for part in ('run', 'draw'):
            _fill(parts.add_parser(part, help=VERBS[f'sweep {part}'].partition('\n')[0]), f'sweep {part}')
    if verb == 'submit':  # the rest is for the verb
        parser.allow_abbrev = False
        args, rest = parser.parse_known_args(argv)
        parse(args.verb, rest)
        return argparse.Namespace(**vars(args), rest=rest)
    return parser.parse_args(argv)


def _fill(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.description, flags, *last = re.sub(r'\n +', ' ', VERBS[verb]).split('\n\n')
    parser.epilog = ' '.join([*last, STATUS])
    group = None
    for either, name, argument, text in LINE.findall(flags):
        options: dict[str, Any] = {'help': text or argparse.SUPPRESS}
        if argument or not name.startswith('-'):
            options |= _options(argument or name)
        else:
            options['action'] = 'store_true'
        if either:
            group = group or parser.add_mutually_exclusive_group()
        more = ['--local-rank'] if name == '--local_rank' else []
        (group if either and group else parser).add_argument(name, *more, **options)


def _options(argument: str) -> dict[str, Any]:
    """Return what argparse is told of an argument."""
    left_out, name, many, value, required = ARGUMENT.fullmatch(argument).groups()  # type: ignore[union-attr]
    options = {'metavar': name, **ARGUMENTS.get(name, {})}
    if name.startswith('{'):
        options = {'choices': name[1:-1].split(',')}
    kind = options.get('type', str)
    if many:
        options = {'nargs': '+', 'default': [kind(one) for one in (value or '').split()], **options}
    elif left_out:
        options |= {'nargs': '?', 'const': None if value is None else kind(value)}
    elif value is not None:
        options['default'] = value
    return options | ({'required': True} if required else {})

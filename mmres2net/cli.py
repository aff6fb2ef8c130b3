"""The ``mmres2net`` command: a table of verbs. The scripts in tools/ call it with a verb filled in."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from mmres2net import flags
from mmres2net.errors import Interrupted, UserError, report
from mmres2net.notices import held_back
from mmres2net.signals import interruptible
from mmres2net.version import __version__

# What a verb does, and what runs it: MODULE:FUNCTION below the package, imported when it is called.
VERBS: dict[str, tuple[str, str]] = {
    'train': ('train a config', 'engine.train:main'),
    'test': ('evaluate a checkpoint', 'engine.test:main'),
    'configs': ('print the folder of the shipped configs, or list them', 'paths:main'),
    'check-data': ('read all data of a config or a folder, list what is wrong, draw samples', 'engine.check_data:main'),
    'convert-data': ('write own data in the format of COCO, VOC or YOLO', 'data.own.standard:main'),
    'prepare-data': ('fetch a public data set and lay it out', 'data.prepare.job:main'),
    'convert-weights': ('convert weights of one library into those of another', 'weights.convert:main'),
    'export': ('write a trained model for ONNX Runtime, OpenVINO, TorchScript or torch.export', 'export.job:main'),
    'predict': ('run a checkpoint or an exported file on images, folders, videos', 'predict.job:main'),
    'merge': ('make one file of the shards of predict', 'predict.shards:main'),
    'submit': ('train or test as a job of a cluster', 'submit:main'),
    'serve': ('serve a page that shows predictions of one or two models', 'predict.serve:main'),
    'cam': ('draw where in an image a network finds a class, beside other networks', 'cam.job:main'),
    'complexity': ('count parameters, multiply-adds and activations of a network', 'complexity.job:main'),
    'compare': ('compare runs: differences with intervals, and a report', 'compare.job:main'),
    'sweep': ('train networks of growing cardinality, depth and scale; plot accuracy by size', 'sweep.main:main'),
    'doctor': ('check the environment: what is missing, mixed up or broken, and how to fix it', 'doctor.main:main'),
    'demo-data': ('make the embedded data set', 'data.shapes:main'),
}


def usage() -> str:
    """Return the text of ``mmres2net --help``."""
    verbs = '\n'.join(f'  {name:<15} {text}' for name, (text, _) in VERBS.items())
    return f'usage: mmres2net VERB ...\n\n{verbs}\n\nmmres2net VERB --help prints the flags of a verb.'


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit status: that of the verb, or of the error that ended it."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ('-h', '--help'):
        print(usage())
        return 0 if argv else 2
    if argv[0] == '--version':
        print(__version__)
        return 0
    name = argv[0].replace('_', '-')
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=1)
        hint = f'; did you mean {close[0]}?' if close else ''
        print(f'error: unknown verb {argv[0]!r}{hint}\n{usage()}', file=sys.stderr)
        return 2
    if name in flags.VERBS:  # help, and errors in flags, come before the import of what does the work
        flags.parse(name, argv[1:])
    module, function = VERBS[name][1].split(':')
    try:
        with interruptible(), held_back(all_warnings=name in ('train', 'test')):
            return getattr(importlib.import_module(f'mmres2net.{module}'), function)(argv[1:]) or 0
    except Interrupted as stop:
        report(stop)
        return stop.status
    except BrokenPipeError:  # the reader of the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where Python flushes at its end
        return 128 + 13
    except (UserError, OSError) as error:
        if os.environ.get('MMRES2NET_TRACEBACK'):
            raise
        report(error)
        return getattr(error, 'status', 1)


if __name__ == '__main__':
    sys.exit(main())

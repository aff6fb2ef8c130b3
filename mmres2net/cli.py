"""The ``mmres2net`` command; the scripts in tools/ call it with a verb filled in."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from mmres2net.errors import UserError
from mmres2net.version import __version__

Verb = Callable[[Sequence[str]], int | None]


def _train(argv: Sequence[str]) -> None:
    from mmres2net.engine.train import main

    main(argv)


def _test(argv: Sequence[str]) -> None:
    from mmres2net.engine.test import main

    main(argv)


def _configs(argv: Sequence[str]) -> None:
    from mmres2net.paths import config_dir, list_configs

    flags = argparse.ArgumentParser(prog='mmres2net configs', description='Print the folder of the shipped configs.')
    flags.add_argument('--list', action='store_true', help='list the configs in it')
    print('\n'.join(list_configs()) if flags.parse_args(argv).list else config_dir())


def _check_data(argv: Sequence[str]) -> int:
    from mmres2net.engine.check_data import main

    return main(argv)


def _prepare_data(argv: Sequence[str]) -> int:
    from mmres2net.data.prepare.job import main

    return main(argv)


def _convert_weights(argv: Sequence[str]) -> int:
    from mmres2net.weights.convert import main

    return main(argv)


def _export(argv: Sequence[str]) -> int:
    from mmres2net.export.job import main

    return main(argv)


def _predict(argv: Sequence[str]) -> int:
    from mmres2net.predict.job import main

    return main(argv)


def _cam(argv: Sequence[str]) -> int:
    from mmres2net.cam.job import main

    return main(argv)


def _complexity(argv: Sequence[str]) -> int:
    from mmres2net.complexity.job import main

    return main(argv)


def _sweep(argv: Sequence[str]) -> int:
    from mmres2net.sweep.main import main

    return main(argv)


def _doctor(argv: Sequence[str]) -> int:
    from mmres2net.doctor.main import main

    return main(argv)


def _demo_data(argv: Sequence[str]) -> int:
    from mmres2net.data.shapes import main

    return main(list(argv))


# Imported where they are called: `mmres2net configs` does not wait for torch.
VERBS: dict[str, tuple[Verb, str]] = {
    'train': (_train, 'train a config'),
    'test': (_test, 'evaluate a checkpoint'),
    'configs': (_configs, 'print the folder of the shipped configs, or list them'),
    'check-data': (_check_data, 'read all data of a config, list what is wrong, draw samples'),
    'prepare-data': (_prepare_data, 'fetch a public data set and lay it out'),
    'convert-weights': (_convert_weights, 'turn weights of one library into those of another'),
    'export': (_export, 'write a trained model for ONNX Runtime, OpenVINO, TorchScript or torch.export'),
    'predict': (_predict, 'run an exported file on images, without the libraries it was trained with'),
    'cam': (_cam, 'draw where in an image a network finds a class, beside other networks'),
    'complexity': (_complexity, 'count parameters, multiply-adds and activations of a network or a config'),
    'sweep': (_sweep, 'train networks of growing cardinality, depth and scale, and draw accuracy against size'),
    'doctor': (_doctor, 'check the environment: what is missing, mixed up or half working, with remedies'),
    'demo-data': (_demo_data, 'make the embedded data set'),
}


def usage() -> str:
    """Return the text of ``mmres2net --help``."""
    verbs = '\n'.join(f'  {name:<15} {text}' for name, (_, text) in VERBS.items())
    return f'usage: mmres2net VERB ...\n\n{verbs}\n\nmmres2net VERB --help tells the flags of a verb.'


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; return the exit status: 0, or 2 for a mistake that the user can mend."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ('-h', '--help'):
        print(usage())
        return 0 if argv else 2
    if argv[0] == '--version':
        print(__version__)
        return 0
    if argv[0] not in VERBS:
        print(f'error: unknown verb {argv[0]!r}\n{usage()}', file=sys.stderr)
        return 2
    try:
        return VERBS[argv[0]][0](argv[1:]) or 0
    except UserError as error:
        if os.environ.get('MMRES2NET_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        if error.__cause__ is not None:
            print('(MMRES2NET_TRACEBACK=1 shows where it comes from)', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())

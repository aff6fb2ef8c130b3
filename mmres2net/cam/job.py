"""``mmres2net cam``: class activation maps of one or more networks on the same images, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import DictAction
from PIL import Image

from mmres2net.cam.core import METHODS, activation_map, library
from mmres2net.cam.draw import Panel, row_of
from mmres2net.cam.names import label_of, name_of
from mmres2net.cam.source import Network, read_network
from mmres2net.cam.tasks import Found
from mmres2net.cam.view import View, look, spread
from mmres2net.engine.loading import safe_loading
from mmres2net.errors import UserError
from mmres2net.predict.images import read_image
from mmres2net.predict.job import images_in, pictures_of
from mmres2net.weights.reading import FLAG

Array = npt.NDArray[Any]


def parser(prog: str = 'mmres2net cam') -> argparse.ArgumentParser:
    """Return the flags of the maps."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Draw where in an image a network finds a class (Grad-CAM), beside what others find there.',
    )
    flags.add_argument('config', help='a config file, the name of a shipped one, or HOST::NAME')
    flags.add_argument(
        'checkpoint',
        nargs='?',
        help='a checkpoint of this config; of a classifier also published weights by name or address',
    )
    # A flag: before CONFIG [CHECKPOINT] nobody could tell where a list of images ends.
    flags.add_argument('--images', nargs='+', required=True, metavar='PATH', help='images, or folders of them')
    flags.add_argument(
        '--against',
        nargs='+',
        action='append',
        default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help='another network, drawn to the right; can be given several times',
    )
    flags.add_argument('--class', dest='name', metavar='C', help='name or number; default: what each network predicts')
    flags.add_argument('--layer', help="name of a layer; default: the last stage of each network's backbone")
    flags.add_argument('--method', choices=METHODS, default='gradcam', help='default: %(default)s')
    flags.add_argument(
        '--whole-map', action='store_true', help='explain a segmentor at all pixels, not at those of the class alone'
    )
    flags.add_argument('--out', metavar='DIR', default='cam', help='folder of the pictures; default: %(default)s')
    flags.add_argument(
        '--arrays', action='store_true', help='write the maps as numbers too, a .npz beside each picture'
    )
    flags.add_argument(
        '--device', default='cpu', help='where the networks run, as cuda or cuda:1; default: %(default)s'
    )
    flags.add_argument('--random', action='store_true', help='random weights where no checkpoint is named, for a trial')
    flags.add_argument(FLAG, action='store_true', help='RUNS CODE from a checkpoint, if it needs any to be read')
    flags.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings that override every config'
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Draw maps by the flags in ``argv`` and print what they explain; return 0.

    Raises:
        UserError: A mistake in the flags, an image, a config or a checkpoint, or nothing that could be explained.
    """
    args = parser().parse_args(argv)
    pairs = pairs_of(args)
    library()
    paths = images_in(args.images)
    for path in paths:
        read_image(path)
    with safe_loading(allow_pickle=args.allow_unsafe_checkpoint):
        networks = [_network(args, *pair) for pair in pairs]
    labels = labels_of(args.name, networks)
    targets = pictures_of(paths, Path(args.out))
    for path, target in zip(paths, targets, strict=True):
        results = [
            explain(network, path, label, method=args.method) for network, label in zip(networks, labels, strict=True)
        ]
        draw(path, networks, results, args.method).save(target)
        if args.arrays:
            write_arrays(target.with_suffix('.npz'), networks, results, args.method)
        print(f'{path}: {"; ".join(_said(*pair) for pair in zip(networks, results, strict=True))}')
    print(f'{len(targets)} pictures{" and arrays" if args.arrays else ""}: {args.out}')
    return 0


def pairs_of(args: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Return config and checkpoint of each network.

    Raises:
        UserError: One has more than the two, or no weights, or ``--random`` is for none of them.
    """
    pairs: list[tuple[str, str | None]] = [(args.config, args.checkpoint)]
    for named in args.against:
        if len(named) > 2:
            raise UserError(
                f'--against {" ".join(named)}: give a config and its checkpoint; other networks by another --against'
            )
        pairs.append((named[0], named[1] if len(named) == 2 else None))
    bare = [config for config, checkpoint in pairs if checkpoint is None]
    if bare and not args.random:
        raise UserError(
            f'{bare[0]}: name a checkpoint behind the config. Of a classifier that can be published weights with their '
            'classifier: res2net50_26w_4s, timm://NAME, torchvision://resnet50; what a config starts from holds a '
            'backbone alone. Or give --random to try it with random weights, whose maps mean nothing'
        )
    if args.random and not bare:
        raise UserError('--random is for networks without a checkpoint, and each has one: leave it out')
    return pairs


def _network(args: argparse.Namespace, config: str, checkpoint: str | None) -> Network:
    return read_network(
        config,
        checkpoint,
        options=args.cfg_options,
        layer=args.layer,
        device=args.device,
        everywhere=args.whole_map,
        allow_pickle=args.allow_unsafe_checkpoint,
    )


def labels_of(text: str | None, networks: Sequence[Network]) -> list[int | None]:
    """Return the number of the class that ``text`` names in each network; None where the network is to choose.

    Raises:
        UserError: One has no such class, or a number means another class in each.
    """
    if text is None:
        return [None] * len(networks)
    labels = [label_of(text, network.classes, network.task.count, network.title) for network in networks]
    meant = {
        name_of(network.classes, label) for network, label in zip(networks, labels, strict=True) if network.classes
    }
    if text.strip().isdecimal() and len(meant) > 1:
        raise UserError(f'--class {text} is {" in one network and ".join(sorted(meant))} in another: give the name')
    return list(labels)


def explain(network: Network, path: Path, label: int | None, *, method: str = 'gradcam') -> tuple[View, Array, Found]:
    """Return what ``network`` gets of an image, its map over the image, and what the map explains.

    Args:
        network: The network.
        path: The image file.
        label: The class; None: what the network predicts.
        method: A key of :data:`mmres2net.cam.core.METHODS`.

    Returns:
        The view, a map (H, W) float32 in [0, 1] as :func:`mmres2net.cam.view.spread` says, and what was found.

    Raises:
        UserError: There is no map of this image; the message names the network.
    """
    try:
        view = look(network.cfg, network.model, path)
        strength, found = activation_map(
            network.model, network.layer, lambda: network.task.explain(view, label), method=method
        )
    except UserError as error:
        raise UserError(f'{network.title} on {path}: {error}') from error
    return view, spread(strength, view), found


def draw(
    path: Path, networks: Sequence[Network], results: Sequence[tuple[View, Array, Found]], method: str
) -> Image.Image:
    """Return the picture of an image: itself, and a panel for each network."""
    image = results[0][0].image
    panels = [Panel([path.name, f'{image.shape[1]}x{image.shape[0]} pixels'])]
    for network, (view, strength, found) in zip(networks, results, strict=True):
        notes = [] if view.seen.is_all_of(view.size) else ['framed: what the network sees']
        notes += [] if strength.any() else ['nothing here speaks for the class: the map is empty']
        title = [f'{network.title}, {network.weights}', f'{_class_of(network, found)}: {found.words}', *notes]
        panels.append(Panel(title, strength, view.seen, found.box))
    layers = list(dict.fromkeys(network.layer for network in networks))
    return row_of(image, panels, f'{method} at {", ".join(layers)}')


def _class_of(network: Network, found: Found) -> str:
    """Return the first of the names of the class, of which ImageNet's have many."""
    return name_of(network.classes, found.label).split(',')[0]


def _said(network: Network, result: tuple[View, Array, Found]) -> str:
    return f'{network.title} {_class_of(network, result[2])} {result[2].words}'


def write_arrays(
    path: Path, networks: Sequence[Network], results: Sequence[tuple[View, Array, Found]], method: str
) -> None:
    """Write the maps of an image and what they explain as a ``.npz`` file; each entry has a row for each network.

    ``maps`` is (networks, H, W) float32 in [0, 1]; ``seen`` has top, left, bottom and right of what is seen, in
    pixels of the image.
    """
    windows = [view.seen for view, _, _ in results]
    founds = [found for _, _, found in results]
    np.savez_compressed(
        path,
        maps=np.stack([strength for _, strength, _ in results]),
        labels=np.array([found.label for found in founds]),
        classes=np.array(
            [name_of(network.classes, found.label) for network, found in zip(networks, founds, strict=True)]
        ),
        scores=np.array([found.score for found in founds]),
        layers=np.array([network.layer for network in networks]),
        seen=np.array([[w.top, w.left, w.top + w.height, w.left + w.width] for w in windows]),
        configs=np.array([network.title for network in networks]),
        weights=np.array([network.weights for network in networks]),
        method=np.array(method),
    )

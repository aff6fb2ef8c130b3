"""``mmres2net cam``: class activation maps of one or more networks on the same images, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmres2net.cam.core import activation_map, library
from mmres2net.cam.image import PreprocessedImage, preprocess_image, upsample_to_image
from mmres2net.cam.names import label_of
from mmres2net.cam.tasks import Explanation, Network, network_of
from mmres2net.drawing import WHITE, draw_boxes, draw_heat_map, make_sheet, resize_within
from mmres2net.engine.loading import safe_loading
from mmres2net.engine.source import read_source
from mmres2net.errors import UserError
from mmres2net.flags import parse
from mmres2net.predict.images import read_image
from mmres2net.predict.inputs import Skipped, find_files, output_paths

Array = npt.NDArray[Any]
Result = tuple[PreprocessedImage, Array, Explanation]
PANEL = (320, 640)  # pixels of a panel's longer side, at least and at most
SHOWN = 8  # images of own data, where none are named
DIM = 0.35  # brightness of what the network does not get


def main(argv: Sequence[str] | None = None) -> int:
    """Draw maps by the flags in ``argv`` and print what they explain; return 1 if images were skipped, else 0.

    Raises:
        UserError: A mistake in the flags, a config or a checkpoint, or nothing that could be explained.
    """
    args = parse('cam', argv)
    pairs = networks_of(args)
    library()
    if not args.images and not args.data:
        raise UserError('name images with --images, or data with --data, whose first test images are drawn')
    paths = find_files(args.images)
    unsafe = args.allow_unsafe_checkpoint
    with safe_loading(allow_pickle=unsafe):
        sources = [read_source(*pair, options=args.cfg_options, data=args.data, allow_pickle=unsafe) for pair in pairs]
    networks = [
        network_of(source, layer=args.layer, device=args.device, all_pixels=args.whole_map) for source in sources
    ]
    labels = labels_of(args.name, networks)
    paths = paths or list(networks[0].images[:SHOWN])
    if not paths:
        raise UserError(f'--data {args.data} is the data set that the config names: name images of it with --images')
    skipped = Skipped()
    for path, (target,) in output_paths(paths, Path(args.out)).items():
        try:
            read_image(path)
        except UserError as error:
            skipped.add(path, error)
            continue
        results = [explain(*pair, path, method=args.method) for pair in zip(networks, labels, strict=True)]
        Image.fromarray(draw_results(path, networks, results, args.method)).save(target)
        if args.arrays:
            write_arrays(target.with_suffix('.npz'), networks, results, args.method)
        texts = [
            f'{network.title} {_class_of(network, explanation)} {explanation.text}'
            for network, (_, _, explanation) in zip(networks, results, strict=True)
        ]
        print(f'{path}: {"; ".join(texts)}')
    done = len(paths) - len(skipped)
    status = skipped.status(done, len(paths))
    print(f'{done} images{" and arrays" if args.arrays else ""}: {args.out}')
    return status


def networks_of(args: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Return config and checkpoint of each network.

    A UserError says that a network has more than the two or no weights, or that ``--random`` is for none of them.
    """
    pairs: list[tuple[str, str | None]] = [(args.config, args.checkpoint)]
    for named in args.against:
        if len(named) > 2:
            raise UserError(f'--against {" ".join(named)}: give a config and its checkpoint, each network by a flag')
        pairs.append((named[0], named[1] if len(named) == 2 else None))
    bare = [config for config, checkpoint in pairs if checkpoint is None]
    if bare and not args.random:
        raise UserError(
            f'{bare[0]}: name a checkpoint after the config. For a classifier that can be published weights with their '
            'classifier (res2net50_26w_4s, timm://NAME, torchvision://resnet50). Or give --random for a trial with '
            'random weights, whose maps mean nothing'
        )
    if args.random and not bare:
        raise UserError('--random is for networks without a checkpoint, and each has one: leave it out')
    return pairs


def labels_of(text: str | None, networks: Sequence[Network]) -> list[int | None]:
    """Return the index of the class that ``text`` names in each network; None where the network chooses.

    A UserError says that one has no such class, or that an index means another class in each.
    """
    if text is None:
        return [None] * len(networks)
    labels = [label_of(text, network.classes, network.task.count, network.title) for network in networks]
    meant = {network.classes[label] for network, label in zip(networks, labels, strict=True) if network.classes}
    if text.strip().isdecimal() and len(meant) > 1:
        raise UserError(f'--class {text} is {" in one network and ".join(sorted(meant))} in another: give the name')
    return list(labels)


def explain(network: Network, label: int | None, path: Path, *, method: str = 'gradcam') -> Result:
    """Return what ``network`` gets of an image, its map (H, W) float32 in [0, 1], and what the map explains.

    Args:
        network: The network.
        label: The class; None: what the network predicts.
        path: The image file.
        method: A key of :data:`mmres2net.cam.core.METHODS`.

    Raises:
        UserError: There is no map of this image; the message names the network.
    """
    try:
        image = preprocess_image(network.cfg, network.model, path)
        heat, explanation = activation_map(
            network.model, network.layer, lambda: network.task.explain(image, label), method=method
        )
    except UserError as error:
        raise UserError(f'{network.title} on {path}: {error}') from error
    return image, upsample_to_image(heat, image), explanation


def draw_results(path: Path, networks: Sequence[Network], results: Sequence[Result], method: str) -> Array:
    """Return the image and, beside it, a panel for each network."""
    image = results[0][0].image
    panels, titles = [resize_within(image, *PANEL)], [[path.name, f'{image.shape[1]}x{image.shape[0]} pixels']]
    for network, result in zip(networks, results, strict=True):
        panels.append(_panel(panels[0], *result))
        titles.append(title_of(network, *result))
    layers = list(dict.fromkeys(network.layer for network in networks))
    return make_sheet(panels, titles, footer=f'{method} at {", ".join(layers)}', color_bar=('weak', 'strong'))


def title_of(network: Network, image: PreprocessedImage, heat: Array, explanation: Explanation) -> list[str]:
    """Return the title of a panel, in lines."""
    lines = [f'{network.title}, {network.weights}', f'{_class_of(network, explanation)}: {explanation.text}']
    lines += [] if image.visible.is_all_of(image.size) else ['the frame is what the network gets']
    return lines + ([] if heat.any() else ['no region supports the class: the map is empty'])


def _panel(plain: Array, image: PreprocessedImage, heat: Array, explanation: Explanation) -> Array:
    factor, panel = plain.shape[0] / image.size[0], draw_heat_map(plain, heat)
    visible = image.visible
    if not visible.is_all_of(image.size):
        corners = visible.top, visible.left, visible.top + visible.height, visible.left + visible.width
        top, left, bottom, right = (round(value * factor) for value in corners)
        dark = (plain * DIM).astype(np.uint8)
        dark[top:bottom, left:right] = panel[top:bottom, left:right]
        panel = draw_boxes(dark, [(left, top, right, bottom)], colors=[WHITE])
    if explanation.box is None:
        return panel
    return draw_boxes(panel, [[value * factor for value in explanation.box]], colors=[WHITE])


def _class_of(network: Network, explanation: Explanation) -> str:
    """Return the name of the class, the first one where it has several as in ImageNet, or its index."""
    names, label = network.classes, explanation.label
    return names[label].split(',')[0] if label < len(names) else f'class {label}'


def write_arrays(path: Path, networks: Sequence[Network], results: Sequence[Result], method: str) -> None:
    """Write the maps of an image and what they explain as a ``.npz`` file; each entry has a row for each network.

    ``maps`` is (networks, H, W) float32 in [0, 1]; ``seen`` is the top, left, bottom and right of what the network
    gets, in pixels of the image.
    """
    windows = [image.visible for image, _, _ in results]
    explanations = [explanation for _, _, explanation in results]
    pairs = list(zip(networks, explanations, strict=True))
    np.savez_compressed(
        path,
        maps=np.stack([heat for _, heat, _ in results]),
        labels=np.array([explanation.label for explanation in explanations]),
        classes=np.array([n.classes[e.label] if n.classes else f'class {e.label}' for n, e in pairs]),
        scores=np.array([explanation.score for explanation in explanations]),
        layers=np.array([network.layer for network in networks]),
        seen=np.array([[w.top, w.left, w.top + w.height, w.left + w.width] for w in windows]),
        configs=np.array([network.title for network in networks]),
        weights=np.array([network.weights for network in networks]),
        method=np.array(method),
    )

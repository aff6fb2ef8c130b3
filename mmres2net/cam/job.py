"""``mmres2net cam``: class activation maps of one or more networks on the same images, side by side."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmres2net.cam.core import activation_map, library
from mmres2net.cam.image import PreprocessedImage, preprocess_image, upsample_to_image
from mmres2net.cam.tasks import Explanation, Network, label_of, network_of
from mmres2net.drawing import WHITE, draw_boxes, draw_heat_map, legible, make_sheet, resize_within
from mmres2net.engine.source import read_source
from mmres2net.engine.weights import safe_loading
from mmres2net.errors import UserError
from mmres2net.flags import parse
from mmres2net.predict.images import read_image
from mmres2net.predict.inputs import Skipped, find_files, output_paths

Array = npt.NDArray[Any]
PANEL = (320, 640)  # pixels of a panel's longer side, at least and at most
SHOWN = 8  # images of own data, where none are named
DIM = 0.35  # brightness of what the network does not get


@dataclass(frozen=True)
class Result:
    """The map of an image."""

    network: Network
    image: PreprocessedImage  # what the network gets
    heat: Array  # the map (H, W), float32 in [0, 1]
    explanation: Explanation  # what the map explains

    @property
    def text(self) -> str:
        """The class, by the first of its names where it has several as in ImageNet, and its score."""
        return f'{self.network.class_name(self.explanation.label).split(",")[0]}: {self.explanation.text}'


def main(argv: Sequence[str] | None = None) -> int:
    """Draw maps by the flags in ``argv`` and print what they explain; return 1 if images were skipped, else 0."""
    args = parse('cam', argv)
    pairs = networks_of(args)
    library()
    if not args.images and not args.data:
        raise UserError('name images with --images, or data with --data, whose first test images are drawn')
    paths = find_files(args.images)
    unsafe = args.allow_unsafe_checkpoint
    with safe_loading(allow_pickle=unsafe):
        sources = [read_source(*pair, options=args.cfg_options, data=args.data, allow_pickle=unsafe) for pair in pairs]
    networks = [network_of(source, layer=args.layer, device=args.device) for source in sources]
    labels = labels_of(args.name, networks)
    paths = paths or list(networks[0].images[:SHOWN])
    if not paths:
        raise UserError(f'--data {args.data} is the data set that the config names: name images of it with --images')
    skipped = Skipped()
    for path, (target,) in output_paths(paths, Path(args.out)).items():
        try:
            read_image(path)
            results = [explain(*pair, path, method=args.method) for pair in zip(networks, labels, strict=True)]
        except UserError as error:
            skipped.add(path, error)
            continue
        Image.fromarray(draw_results(path, results, args.method)).save(target)
        print(f'{path}: {"; ".join(f"{result.network.title} {result.text}" for result in results)}')
    status = skipped.status(len(paths) - len(skipped), len(paths))
    print(f'{len(paths) - len(skipped)} images: {args.out}')
    return status


def networks_of(args: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Return config and checkpoint of each network; a UserError if one has no weights."""
    named = [[args.config, args.checkpoint], *args.against]
    for words in named:
        if len(words) > 2:
            raise UserError(f'--against {" ".join(words)}: give a config and its checkpoint, each network by a flag')
    pairs = [(words[0], words[1] if len(words) == 2 else None) for words in named]
    if bare := [config for config, checkpoint in pairs if checkpoint is None]:
        what = f'{bare[0]}: name a checkpoint after the config, for a classifier also published weights'
        raise UserError(f'{what} (res2net50_26w_4s, timm://NAME, torchvision://resnet50)')
    return pairs


def labels_of(text: str | None, networks: Sequence[Network]) -> list[int | None]:
    """Return the index of the class that ``text`` names in each network; None where the network chooses."""
    if text is None:
        return [None] * len(networks)
    labels = [label_of(text, network) for network in networks]
    meant = {network.classes[label] for network, label in zip(networks, labels, strict=True) if network.classes}
    if text.strip().isdecimal() and len(meant) > 1:
        raise UserError(f'--class {text} is {" in one network and ".join(sorted(meant))} in another: give the name')
    return list(labels)


def explain(network: Network, label: int | None, path: Path, *, method: str = 'gradcam') -> Result:
    """Return the map of an image for class ``label``, or what the network predicts; a UserError if there is none."""
    try:
        image = preprocess_image(network.cfg, network.model, path)
        heat, explanation = activation_map(
            network.model, network.layer, lambda: network.task.explain(image, label), method=method
        )
    except UserError as error:
        raise UserError(f'{network.title} on {path}: {error}') from error
    return Result(network, image, upsample_to_image(heat, image), explanation)


def draw_results(path: Path, results: Sequence[Result], method: str) -> Array:
    """Return the image and, beside it, a panel for each network."""
    image = results[0].image.image
    panels, titles = [resize_within(image, *PANEL)], [[path.name, f'{image.shape[1]}x{image.shape[0]} pixels']]
    for result in results:
        panels.append(draw_panel(panels[0], result))
        label = result.explanation.label
        name = legible(result.network.class_name(label).split(',')[0], label)
        lines = [f'{result.network.title}, {result.network.weights}', f'{name}: {result.explanation.text}']
        lines += [] if result.image.shows_all else ['the frame is what the network gets']
        titles.append(lines + ([] if result.heat.any() else ['no region supports the class: the map is empty']))
    layers = list(dict.fromkeys(result.network.layer for result in results))
    return make_sheet(panels, titles, footer=f'dark: weak, light: strong; {method} at {", ".join(layers)}')


def draw_panel(plain: Array, result: Result) -> Array:
    """Return the image, ``plain`` in the size of a panel, with its map, what the network gets, and a detection."""
    factor, panel = plain.shape[0] / result.image.image.shape[0], draw_heat_map(plain, result.heat)
    if not result.image.shows_all:
        top, left, bottom, right = (round(value * factor) for value in result.image.visible)
        dark = (plain * DIM).astype(np.uint8)
        dark[top:bottom, left:right] = panel[top:bottom, left:right]
        panel = draw_boxes(dark, [(left, top, right, bottom)], colors=[WHITE])
    box = result.explanation.box
    return draw_boxes(panel, [[value * factor for value in box]], colors=[WHITE]) if box else panel

"""What a network gets of an image file by its config's own test pipeline, and where that lies in the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config
from torch import Tensor

from mmres2net.engine.build import scope_of
from mmres2net.engine.source import applies_exif, build_steps, kind_of, loaded_results, run_step, run_steps
from mmres2net.errors import UserError
from mmres2net.predict.images import Size, read_image, sample_bilinear

Array = npt.NDArray[Any]
RESIZING, MOVING = ('Resize', 'ResizeEdge'), ('CenterCrop', 'Pad')


@dataclass(frozen=True)
class PreprocessedImage:
    """An image as a network gets it. Places are in pixels of the image file, from its upper left corner."""

    image: Array  # the image file, (H, W, 3) uint8 RGB
    inputs: Tensor  # of the network, (1, C, h, w), with padding
    sample: Any  # the data sample of the OpenMMLab library
    content: Size  # height and width of `inputs` without padding
    window: Array  # top, left, height and width of `inputs` in the image, beyond which it may reach

    @property
    def visible(self) -> Array:
        """Top, left, bottom and right of the part of the image that the network gets."""
        top_left, extent = np.split(part_of(self.window, self.inputs.shape[2:], (0, 0), self.content), 2)
        return np.concatenate([np.maximum(top_left, 0), np.minimum(top_left + extent, self.image.shape[:2])])

    @property
    def shows_all(self) -> bool:
        """Whether the network gets the complete image, up to half a pixel."""
        return bool(np.abs(self.visible - (0, 0, *self.image.shape[:2])).max() < 0.5)


def part_of(window: Array, size: Sequence[int], first: Sequence[float], part: Sequence[int]) -> Array:
    """Return where ``part`` pixels (height, width) lie from pixel ``first`` on, of ``size`` that fill ``window``."""
    scale = window[2:] / np.asarray(size)
    return np.concatenate([window[:2] + scale * np.asarray(first), scale * np.asarray(part)])


def preprocess_image(cfg: Config, model: Any, path: Path) -> PreprocessedImage:
    """Return what ``model`` gets of an image by the test pipeline of ``cfg``; a UserError if a map cannot follow it."""
    image = read_image(path, apply_exif=applies_exif(cfg))
    results, window = loaded_results(cfg, image, path), np.array([0.0, 0.0, *image.shape[:2]])
    with scope_of(cfg):
        for step in build_steps(cfg):
            before, results = results, run_step(step, dict(results), path)
            if 'img' in results:
                window = _window_after(step, before, results, window)
        batch = run_steps((), results, path)
        _, *content = batch['inputs'][0].shape
        data = model.data_preprocessor(batch, False)
    _, _, *padded = data['inputs'].shape
    window = part_of(window, content, (0, 0), padded)
    return PreprocessedImage(image, data['inputs'], data['data_samples'][0], (content[0], content[1]), window)


def _window_after(step: Any, before: dict[str, Any], after: dict[str, Any], window: Array) -> Array:
    """Return where the pixels after a step lie, for those before it that fill ``window``."""
    kind, old, new = kind_of(step), before['img'].shape[:2], after['img'].shape[:2]
    unknown = kind not in RESIZING + MOVING
    if after.get('flip') or (unknown and not np.array_equal(before['img'], after['img'])):
        what = f'the step {kind} of the test pipeline may move pixels in a way that a map cannot follow'
        known = ', '.join(RESIZING + MOVING)
        raise UserError(f'{what}; supported are {known} and steps that leave the image unchanged')
    if unknown or kind in RESIZING:
        return window
    # Where the first pixel came from, by the step itself: in this image each pixel holds its own place.
    places = np.stack([*np.mgrid[: old[0], : old[1]].astype(np.float32), np.zeros(old, np.float32)], 2)
    found = run_step(step, {**before, 'img': places}, Path('a map of places'))['img'][:2, :2, :2].astype(float)
    if not np.array_equal(found[-1, -1] - found[0, 0], np.array(found.shape[:2]) - 1):
        raise UserError(f'the step {kind} of the test pipeline pads above or on the left, which a map cannot follow')
    return part_of(window, old, found[0, 0], new)


def upsample_to_image(heat: Array, preprocessed: PreprocessedImage) -> Array:
    """Return the map of a layer over the image, each pixel interpolated between the four cells around it.

    The cells are taken to fill the network's input evenly, padding included, as in the library and in the paper's
    figure. What the network does not get is 0; the largest value is 1, unless none is above 0. ``heat`` is (h, w), zero
    or more; the result is (H, W) float32 in [0, 1].
    """
    size = preprocessed.image.shape[0], preprocessed.image.shape[1]
    if not heat.any():
        return np.zeros(size, np.float32)
    (y, x), (top, left, bottom, right) = heat.shape / preprocessed.window[2:], preprocessed.visible
    start = -preprocessed.window[:2] * (y, x)
    full = sample_bilinear(heat / heat.max(), size, (y, x), (start[0], start[1])).copy()
    for plane, first, end in ((full, top, bottom), (full.T, left, right)):
        plane[np.abs(np.arange(len(plane)) + 0.5 - (first + end) / 2) > (end - first) / 2] = 0
    return full / (full.max() or 1)

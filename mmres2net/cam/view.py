"""What a network sees of an image file, by its config's own test pipeline, and where that lies in the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from torch import Tensor

from mmres2net.data.layout import dataset_of_test
from mmres2net.errors import UserError
from mmres2net.export.quiet import quiet

Array = npt.NDArray[Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A rectangle in pixels of the image file, from the upper left corner of the first; it may reach beyond the image.

    Args:
        top, left: Of its upper left corner.
        height, width: Its sides.
    """

    top: float
    left: float
    height: float
    width: float

    def part(self, size: Size, first: tuple[float, float], part: Size) -> Window:
        """Return where ``part`` pixels (height, width) lie from pixel ``first`` on, of ``size`` that fill this one."""
        down, right = self.height / size[0], self.width / size[1]
        top, left = self.top + first[0] * down, self.left + first[1] * right
        return Window(top, left, part[0] * down, part[1] * right)

    def inside(self, size: Size) -> Window:
        """Return the part of it that lies in an image of ``size`` (height, width)."""
        top, left = max(self.top, 0.0), max(self.left, 0.0)
        bottom, right = min(self.top + self.height, size[0]), min(self.left + self.width, size[1])
        return Window(top, left, max(bottom - top, 0.0), max(right - left, 0.0))

    def is_all_of(self, size: Size) -> bool:
        """Whether it is a whole image of ``size``, up to half a pixel."""
        return max(self.top, self.left, size[0] - self.height, size[1] - self.width) < 0.5


@dataclass(frozen=True)
class View:
    """One image as a network gets it.

    Args:
        image: The image file, (H, W, 3) uint8, RGB.
        inputs: What the network gets, (1, C, h, w), padding included.
        sample: The host's data sample.
        content: Height and width of ``inputs`` without padding.
        window: Where ``inputs`` lies in the image, padding included.
    """

    image: Array
    inputs: Tensor
    sample: Any
    content: Size
    window: Window

    @property
    def size(self) -> Size:
        """Height and width of the image file."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def seen(self) -> Window:
        """The part of the image that the network sees."""
        whole = (self.inputs.shape[2], self.inputs.shape[3])
        return self.window.part(whole, (0, 0), self.content).inside(self.size)


def look(cfg: Config, model: Any, path: Path) -> View:
    """Return what ``model`` gets of the image at ``path``.

    Args:
        cfg: The config, whose test pipeline is run without its annotations.
        model: The model, whose data preprocessor is run.
        path: The image file.

    Raises:
        UserError: The pipeline has no images of files, fails, or moves pixels in a way that cannot be followed.
    """
    with quiet():  # it warns where networks of two hosts take turns
        init_default_scope(cfg.get('default_scope') or 'mmengine')
    steps = [step for step in dataset_of_test(cfg).get('pipeline') or [] if not _loads_annotations(step)]
    if not any(_kind(step).startswith('LoadImage') for step in steps):
        raise UserError('the config has no test pipeline that loads image files (test_dataloader.dataset.pipeline)')
    results: dict[str, Any] = {'img_path': str(path), 'img_id': 0, 'sample_idx': 0}
    image, window = None, Window(0, 0, 0, 0)
    for step in steps:
        before = results
        results = _run(step, dict(before), path)
        if image is None and 'img' in results:
            image = _as_rgb(results['img'], step.get('channel_order') == 'rgb')
            window = Window(0, 0, *image.shape[:2])
        elif 'img' in before and 'img' in results:
            window = _moved(step, before, results, window)
    return _packed(model, results, image, window, path)


def _kind(step: Mapping[str, Any]) -> str:
    kind = step['type']
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def _loads_annotations(step: Mapping[str, Any]) -> bool:
    return _kind(step).startswith('Load') and not _kind(step).startswith('LoadImage')


def _run(step: Mapping[str, Any], results: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        found = TRANSFORMS.build(dict(step))(results)
    except Exception as error:  # whatever a step raises: the way out is the same
        raise UserError(
            f'{path}: the step {_kind(step)} of the test pipeline fails: {type(error).__name__}: {error}'
        ) from error
    if not isinstance(found, dict):
        raise UserError(f'{path}: the step {_kind(step)} of the test pipeline gives nothing for this image')
    return found


def _as_rgb(pixels: Array, rgb: bool) -> Array:
    """Return loaded pixels as (H, W, 3) uint8 in RGB, for showing."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, 2)
    elif not rgb:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _moved(step: Mapping[str, Any], before: dict[str, Any], after: dict[str, Any], window: Window) -> Window:
    """Return where the pixels after a step lie, for those before it that fill ``window``."""
    kind, old, new = _kind(step), before['img'].shape[:2], after['img'].shape[:2]
    if after.get('flip'):
        raise UserError(f'the step {kind} of the test pipeline flips the image, which a map does not follow')
    if 'Resize' in kind or (old == new and not any(word in kind for word in ('Crop', 'Pad'))):
        return window
    # Where the first pixel came from, by the step itself: an image whose pixels are their own places.
    places = np.stack([*np.mgrid[: old[0], : old[1]].astype(np.float32), np.zeros(old, np.float32)], 2)
    found = _run(step, {**before, 'img': places}, Path('a map of places'))['img'][:2, :2, :2].astype(float)
    steps = found[-1, -1] - found[0, 0]
    if kind.startswith('Random') or not np.array_equal(steps, np.array(found.shape[:2]) - 1):
        raise UserError(
            f'the step {kind} of the test pipeline moves pixels in a way that a map does not follow; it follows '
            'Resize, crops at a fixed place, and padding below and on the right'
        )
    return window.part(old, (found[0, 0, 0], found[0, 0, 1]), new)


def _packed(model: Any, results: dict[str, Any], image: Array | None, window: Window, path: Path) -> View:
    inputs = results.get('inputs')
    if image is None or not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise UserError(f'{path}: the test pipeline gives no single image (C, h, w) to the network')
    content = (inputs.shape[1], inputs.shape[2])
    data = model.data_preprocessor({'inputs': [inputs], 'data_samples': [results['data_samples']]}, False)
    batch = data['inputs']
    window = window.part(content, (0, 0), (batch.shape[2], batch.shape[3]))
    return View(image, batch, data['data_samples'][0], content, window)


def spread(strength: Array, view: View) -> Array:
    """Return the map of a layer over the image, each pixel interpolated between the four cells around it.

    The cells are taken to fill the network's input evenly, padding included, as in the library and in the paper's
    figure. What the network does not see is 0; the strongest pixel is 1, unless none is above 0.

    Args:
        strength: The map of a layer, (h, w), zero or more.
        view: The image.

    Returns:
        (H, W) float32 in [0, 1].
    """
    window, seen = view.window, view.seen
    rows = _taps(view.size[0], window.top, window.height, strength.shape[0])
    columns = _taps(view.size[1], window.left, window.width, strength.shape[1])
    rows[~_inside(view.size[0], seen.top, seen.height)] = 0
    columns[~_inside(view.size[1], seen.left, seen.width)] = 0
    full = rows @ strength.astype(np.float64) @ columns.T
    highest = full.max()
    return (full / highest if highest > 0 else np.zeros_like(full)).astype(np.float32)


def _taps(pixels: int, start: float, extent: float, cells: int) -> Array:
    """Return how much each of ``cells`` over ``extent`` from ``start`` on weighs at each pixel, (pixels, cells)."""
    place = (np.arange(pixels) + 0.5 - start) / extent * cells - 0.5
    place = np.clip(place, 0, cells - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, 1)


def _inside(pixels: int, start: float, extent: float) -> Array:
    centres = np.arange(pixels) + 0.5
    return (centres >= start) & (centres <= start + extent)

"""The images of the data set `shapes`: a scene is one image with its instances, drawn from random numbers.

Each class of shapes has its own colour, with some variation, and backgrounds are muted, so that the demo trains from
random weights in minutes. Masks, boxes and the pixels before JPEG are the same for any numpy version and platform: the
random bits are PCG64's raw output (numpy guarantees that stream, but not `Generator`'s methods), and all drawing is
elementwise +, -, *, / and comparison in float64, with sines rounded to 2**-20.
"""

import math
from dataclasses import asdict, dataclass, replace

import numpy as np

CLASSES: tuple[str, ...] = ('disc', 'square', 'triangle', 'star', 'ring', 'cross')
SPLITS: tuple[str, ...] = ('train', 'val')
SIDES = (160, 192)  # of an image, in pixels; multiples of 16
MAX_OBJECTS = 6
# Diameter of a disc, in pixels; other shapes are scaled to look as large. It never exceeds 0.9 of the shorter side.
MIN_SIZE, MAX_SIZE = 10, 144
MIN_VISIBLE = 0.6  # of an object's area; the rest is outside of the image or hidden by other objects
EMPTY_EVERY = 50  # one image in 50 has no object
CROWD_EVERY = 25  # one image in 25 has a group with one annotation
# RGB by class, at the corners of the colour cube, where no background is
COLOURS = ((215, 45, 45), (45, 190, 60), (50, 80, 215), (220, 200, 45), (200, 55, 205), (50, 200, 210))
_LIMITS = {'n_train': (1, 99_999), 'n_val': (1, 99_999), 'seed': (0, 2**32 - 1)}


@dataclass(frozen=True)
class ShapesSpec:
    """Options of a data set; equal specs give equal sets. A ValueError names a value that is out of range."""

    n_train: int = 400
    n_val: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low, high = _LIMITS[name]
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f'{name}={value!r}: choose an int from {low} to {high}')


@dataclass(frozen=True, eq=False)
class Instance:
    """One annotated object, or one group of them."""

    label: int
    mask: np.ndarray  # bool (H, W), true where the object is seen
    full_area: int  # pixels with nothing in the way
    crowd: bool

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Tight box (x1, y1, x2, y2) of the visible pixels, half-open: x2 and y2 are one past the last pixel."""
        xs, ys = np.flatnonzero(self.mask.any(0)), np.flatnonzero(self.mask.any(1))
        return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, uint8 RGB (H, W, 3), and its instances in drawing order: later ones lie on top."""

    image: np.ndarray
    instances: tuple[Instance, ...]


class RandomBits:
    """Random numbers that depend on the key alone, not on numpy's version."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(list(key))

    def field(self, height: int, width: int) -> np.ndarray:
        """Float64 (height, width) in [0, 1)."""
        raw = self._bits.random_raw(height * width)
        return (raw >> np.uint64(11)).astype(np.float64).reshape(height, width) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.field(1, 1)[0, 0])

    def between(self, low: int, high: int) -> int:
        """An int from low to high, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)


def _cos_sin(degrees: int) -> tuple[float, float]:
    # Rounded, because the last bit of a sine differs between maths libraries.
    angle = math.radians(degrees)
    return round(math.cos(angle) * 2**20) / 2**20, round(math.sin(angle) * 2**20) / 2**20


def _noise(rng: RandomBits, height: int, width: int, cell: float) -> np.ndarray:
    """Smooth noise (H, W) in [0, 1): random values on a grid of `cell` pixels, blended between."""
    ys, xs = (np.arange(height) + 0.5) / cell, (np.arange(width) + 0.5) / cell
    grid = rng.field(int(height / cell) + 2, int(width / cell) + 2)
    y0, x0 = ys.astype(int), xs.astype(int)
    fy, fx = ys - y0, xs - x0
    fy, fx = (fy * fy * (3 - 2 * fy))[:, None], fx * fx * (3 - 2 * fx)
    rows = grid[y0] * (1 - fy) + grid[y0 + 1] * fy
    return rows[:, x0] * (1 - fx) + rows[:, x0 + 1] * fx


def _texture(rng: RandomBits, height: int, width: int, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Float64 (H, W, 3) between two colours: clouds, a gradient, stripes or patches, with fine grain."""
    cell = rng.uniform(20.0, 60.0)
    coarse, middle, fine = (_noise(rng, height, width, cell / k) for k in (1, 3, 9))
    tone = 0.55 * coarse + 0.3 * middle + 0.15 * fine
    kind = ('clouds', 'gradient', 'stripes', 'patches')[rng.between(0, 3)]
    if kind in ('gradient', 'stripes'):
        cos, sin = _cos_sin(rng.between(0, 359))
        along = np.arange(width)[None, :] * cos + np.arange(height)[:, None] * sin
        if kind == 'gradient':
            tone = 0.35 * tone + 0.65 * (along / (height + width) + 0.5)
        else:
            wave = along / rng.uniform(8.0, 40.0)
            tone = 0.4 * tone + 0.6 * np.abs(2 * (wave - np.floor(wave)) - 1)
    elif kind == 'patches':
        tone = np.floor(tone * 4) / 3
    grain = rng.uniform(2.0, 12.0) * (rng.field(height, width) - 0.5)
    return dark + (light - dark) * tone[:, :, None] + grain[:, :, None]


def _pair(rng: RandomBits, base: np.ndarray, spread: int) -> tuple[np.ndarray, np.ndarray]:
    offset = np.array([rng.between(-spread, spread) for _ in range(3)])
    return base - offset / 2, base + offset / 2


def _inside(label: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the bool mask of a shape; u, v are coordinates relative to the centre, in units of the size."""
    name, radius2 = CLASSES[label], u * u + v * v
    near, far = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    if name == 'disc':
        return radius2 <= 0.25
    if name == 'ring':
        return (radius2 <= 0.25) & (radius2 >= 0.0729)
    if name == 'square':
        return far <= 0.45
    if name == 'cross':
        return (near <= 0.16) & (far <= 0.52)
    # Edges of a regular polygon: a triangle is inside all three, a five-pointed star outside at most one of five.
    edges, distance = (3, 0.31) if name == 'triangle' else (5, 0.19)
    sides = (_cos_sin(90 + 360 * k // edges) for k in range(edges))
    outside = np.sum([u * cos + v * sin > distance for cos, sin in sides], axis=0)
    return outside <= (0 if name == 'triangle' else 1)


def _outline(rng: RandomBits, label: int, size: float) -> np.ndarray:
    """Bool (n, n), n odd: one shape of the given size at a random orientation, slightly squashed, not cut off."""
    reach = math.ceil(0.65 * size) + 1
    cos, sin = _cos_sin(rng.between(0, 359))
    squash = rng.uniform(1.0, 1.15)
    dx, dy = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)
    x = (np.arange(-reach, reach + 1) + dx)[None, :]
    y = (np.arange(-reach, reach + 1) + dy)[:, None]
    return _inside(label, (x * cos + y * sin) / size, (y * cos - x * sin) * squash / size)


def _group(rng: RandomBits, label: int, size: int) -> np.ndarray:
    """Bool (n, n), n odd: nine small shapes of one class, scattered over a square."""
    step = size + 4
    group = np.zeros((5 * step + 1 - step % 2,) * 2, dtype=bool)
    for row, column in np.ndindex(3, 3):
        part = _outline(rng, label, size)
        y = step // 2 + row * step + rng.between(0, 4)
        x = step // 2 + column * step + rng.between(0, 4)
        group[y : y + len(part), x : x + len(part)] |= part
    return group


def _paste(outline: np.ndarray, x: int, y: int, height: int, width: int) -> np.ndarray:
    """Return a bool mask (H, W) with the outline centred at pixel (x, y), cropped to the image."""
    reach = len(outline) // 2
    mask = np.zeros((height, width), dtype=bool)
    top, left = max(y - reach, 0), max(x - reach, 0)
    part = outline[top - (y - reach) : height - (y - reach), left - (x - reach) : width - (x - reach)]
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def _place(
    rng: RandomBits, below: list[Instance], label: int, outline: np.ndarray, shape: tuple[int, int], crowd: bool
) -> list[Instance] | None:
    (height, width), full_area = shape, int(np.count_nonzero(outline))
    near = len(outline) // 4  # the centre is at least this far inside, so that cropped shapes stay recognizable
    places = [(rng.between(near, width - near), rng.between(near, height - near)) for _ in range(12)]
    for x, y in [*places, (width // 2, height // 2)]:
        mask = _paste(outline, x, y, height, width)
        placed = [replace(old, mask=old.mask & ~mask) for old in below]
        placed.append(Instance(label, mask, full_area, crowd))
        if all(one.area >= MIN_VISIBLE * one.full_area for one in placed):
            return placed
    return None


def _sizes(rng: RandomBits, count: int, longest: float) -> list[float]:
    """Return sizes in pixels, largest first, distributed uniformly over powers of two."""
    starts = [start for k in range(9) if (start := MIN_SIZE * 2**k) < MAX_SIZE]
    sizes = []
    for _ in range(count):
        start = starts[rng.between(0, len(starts) - 1)]
        sizes.append(min(rng.uniform(start, min(2 * start, MAX_SIZE)), longest))
    return sorted(sizes, reverse=True)


def draw_scene(spec: ShapesSpec, split: str, index: int) -> Scene:
    """Draw image `index` (from 0) of a split; it depends on `spec`'s seed, and not on how many images there are."""
    rng = RandomBits(spec.seed, SPLITS.index(split), index)
    height, width = (16 * rng.between(SIDES[0] // 16, SIDES[1] // 16) for _ in range(2))
    grey = rng.between(50, 200)
    background = np.array([grey + rng.between(-25, 25) for _ in range(3)])
    image = _texture(rng, height, width, *_pair(rng, background, 50))
    instances: list[Instance] = []
    empty = index % EMPTY_EVERY == EMPTY_EVERY - 1
    todo = [] if empty else _objects(rng, index, 0.9 * min(height, width))
    for label, outline, crowd in todo:
        placed = _place(rng, instances, label, outline, (height, width), crowd)
        if placed is None:
            continue
        instances = placed
        x1, y1, x2, y2 = instances[-1].box
        mask = instances[-1].mask[y1:y2, x1:x2]
        colour = np.array([channel + rng.between(-30, 30) for channel in COLOURS[label]])
        image[y1:y2, x1:x2][mask] = _texture(rng, y2 - y1, x2 - x1, *_pair(rng, colour, 60))[mask]
    return Scene(np.clip(image, 0, 255).astype(np.uint8), tuple(instances))


def _objects(rng: RandomBits, index: int, longest: float) -> list[tuple[int, np.ndarray, bool]]:
    sizes = _sizes(rng, rng.between(1, MAX_OBJECTS), longest)
    labels = [rng.between(0, len(CLASSES) - 1) for _ in sizes]
    labels[0] = index % len(CLASSES)  # so that the smallest set has every class
    objects = [(label, _outline(rng, label, size), False) for label, size in zip(labels, sizes, strict=True)]
    if index % CROWD_EVERY == CROWD_EVERY // 2:
        label = rng.between(0, len(CLASSES) - 1)
        objects.insert(0, (label, _group(rng, label, MIN_SIZE), True))
    return objects

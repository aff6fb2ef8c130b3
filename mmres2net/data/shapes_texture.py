"""Random numbers, colours and textures of the data set `shapes`; `shapes_scene` says what is reproducible and why."""

import math

import numpy as np

# RGB by class, at the corners of the colour cube, where no background is
COLOURS = ((215, 45, 45), (45, 190, 60), (50, 80, 215), (220, 200, 45), (200, 55, 205), (50, 200, 210))


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


def cos_sin(degrees: int) -> tuple[float, float]:
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


def _octaves(rng: RandomBits, height: int, width: int) -> np.ndarray:
    cell = rng.uniform(20.0, 60.0)
    coarse, middle, fine = (_noise(rng, height, width, cell / k) for k in (1, 3, 9))
    return 0.55 * coarse + 0.3 * middle + 0.15 * fine


def texture(rng: RandomBits, height: int, width: int, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Float64 (H, W, 3) between two colours: clouds, a gradient, stripes or patches, with fine grain."""
    tone = _octaves(rng, height, width)
    kind = ('clouds', 'gradient', 'stripes', 'patches')[rng.between(0, 3)]
    if kind in ('gradient', 'stripes'):
        cos, sin = cos_sin(rng.between(0, 359))
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


def pair(rng: RandomBits, base: np.ndarray, spread: int) -> tuple[np.ndarray, np.ndarray]:
    offset = np.array([rng.between(-spread, spread) for _ in range(3)])
    return base - offset / 2, base + offset / 2


def background(rng: RandomBits) -> np.ndarray:
    """A muted colour (3,): a grey with a slight tint."""
    grey = rng.between(50, 200)
    return np.array([grey + rng.between(-25, 25) for _ in range(3)])


def colour(rng: RandomBits, label: int) -> np.ndarray:
    """A colour (3,) near that of a class."""
    return np.array([channel + rng.between(-30, 30) for channel in COLOURS[label]])

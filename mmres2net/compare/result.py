"""What a comparison found, as plain values: the page is drawn from it, and ``report.json`` is it.

Metrics are in percent, save those of saliency, which are fractions. None stands for a value that is not defined, such
as the AP of small objects where there are none. Differences are those of the other sides to the first one, the
reference. Intervals are of 95 %.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

CHECKPOINTS, RECIPES = 'checkpoints', 'recipes'
Values = tuple[float | None, ...]


@dataclass(frozen=True)
class Run:
    """One trained network."""

    folder: str  # the work dir, or where the evaluation was kept
    config: str  # text of the resolved config
    config_file: str  # its name
    checkpoint: str  # the file that was evaluated
    sha256: str  # its hash
    seed: int | None  # of the training, None if unknown
    versions: dict[str, str]  # of Python, torch and the OpenMMLab libraries at the evaluation, by name
    data_sha256: str  # of the images' names and their annotations
    arrays: str  # the file with what was found in each image
    command: str  # evaluates it again


@dataclass(frozen=True)
class Side:
    """A network or, with several seeds, a recipe."""

    name: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Estimate:
    """A value of a side, the mean over its seeds, with its interval."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference(Estimate):
    """A side's value less that of the first side.

    ``above`` is the probability that it is greater than 0: the share of the replicates, mirrored at ``value`` as in the
    interval; of those equal to 0, one half. ``p`` is two-sided, from the replicates' standard deviation.
    """

    above: float | None
    bias: float | None  # mean of the replicates less value, which intervals correct for
    p: float | None  # in rows by class adjusted for their number (Holm), where it decides about a difference
    paper: float | None = None  # the published difference of the two configs


@dataclass(frozen=True)
class Row:
    """A metric, or the main metric of a class."""

    name: str  # such as AP50, or the name of the class
    group: str  # bbox, segm, a saliency data set, or empty: rows of one table
    higher_is_better: bool
    sides: tuple[Estimate, ...]
    differences: tuple[Difference, ...]  # one for each side after the first
    paper: Values = ()  # the published value of each side


@dataclass(frozen=True)
class Line:
    """A line of a plot, of one side, with its band; a band may be empty."""

    y: Values
    low: Values = ()
    high: Values = ()


@dataclass(frozen=True)
class Curve:
    """A plot with one line for each side."""

    title: str
    group: str
    xlabel: str
    ylabel: str
    x: tuple[float, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Calibration:
    """Mean confidence against accuracy of a side, in bins of equal width; None in an empty bin."""

    group: str
    side: str
    confidence: Values
    accuracy: Values
    count: tuple[float, ...]  # detections, images or pixels in each bin
    ece: float | None  # expected calibration error, a fraction (Guo et al., ICML 2017, equation 5)


@dataclass(frozen=True)
class Confusion:
    """Confusion matrices: annotated classes in rows, found ones in columns."""

    group: str
    names: tuple[str, ...]  # of rows and columns; the last one is the background for detection
    tables: tuple[tuple[tuple[float, ...], ...], ...]  # of each side; objects, pixels or images, means over seeds


@dataclass(frozen=True)
class Images:
    """The evaluated images, in the order of the data set."""

    names: tuple[str, ...]  # paths as the first run saw them; image i is sample i of each run's data set
    scores: tuple[Values, ...]  # (sides, images) in [0, 1]; None where nothing is to be found and nothing was found
    score: str  # what the score is


@dataclass(frozen=True)
class Setting:
    """A setting that is not the same in the configs of all sides."""

    key: str  # such as model.backbone.depth
    values: tuple[str, ...]  # of each side, - where it has none
    belongs: str  # such as architecture; empty if it is none of what may differ when backbones are compared


@dataclass(frozen=True)
class Start:
    """What a part of a side's network started from; what is unknown is empty."""

    side: str
    part: str
    name: str  # of a checkpoint, or "random weights"
    sha256: str = ''  # the first digits, as its publisher names them
    recipe: str = ''
    licence: str = ''


@dataclass(frozen=True)
class Cost:
    """What one image costs a side in testing; None stands for what was not measured."""

    side: str
    parameters: int | None
    macs: int | None  # multiply-adds for an image of size (height, width)
    size: tuple[int, int] | None
    milliseconds: Estimate  # median time from the prepared image to its predictions
    ratio: Estimate  # median of this time over that of the first side in the same turn
    memory: int | None  # most bytes of tensors at a time, beside the weights


@dataclass(frozen=True)
class Comparison:
    """A comparison of two or more sides on the same images."""

    task: str  # detection (masks are its group segm), segmentation, classification or saliency
    level: str  # checkpoints: one run a side, or recipes: several seeds on each side
    command: str  # repeats the comparison
    seed: int  # of the bootstrap
    samples: int
    banners: tuple[str, ...]  # what makes the comparison doubtful, shown in red
    sides: tuple[Side, ...]
    classes: tuple[str, ...]
    metrics: tuple[Row, ...]  # the first one is the task's main metric
    by_class: tuple[Row, ...]  # the main metric by class
    metric: dict[str, str]  # what by_class is, by group, such as {'bbox': 'AP'}
    curves: tuple[Curve, ...]
    calibration: tuple[Calibration, ...]
    errors: tuple[Row, ...]  # the AP that each kind of error costs (Bolya et al., TIDE, ECCV 2020); detection only
    confusions: tuple[Confusion, ...]
    images: Images
    settings: tuple[Setting, ...] = ()  # that differ
    starts: tuple[Start, ...] = ()
    costs: tuple[Cost, ...] = ()  # one for each side
    cost_note: str = ''  # where and how they were measured, or why not


def plain(value: Any) -> Any:
    """Return ``value`` with arrays and lists as tuples, NumPy's scalars as Python's, and NaN as None."""
    if hasattr(value, 'tolist'):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(plain(part) for part in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(result: Comparison) -> str:
    """Return the text of ``report.json``."""
    return json.dumps(asdict(result), indent=1, allow_nan=False) + '\n'

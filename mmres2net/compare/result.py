"""What a comparison found, as plain values: the page is drawn from it, and ``report.json`` is it.

Metrics are in percent, save those of saliency, which are fractions. None stands for a value that is not defined, such
as the AP of small objects where there are none. The first side is the reference: differences are those of the other
sides to it. Intervals are of 95 %.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

CHECKPOINTS, RECIPES = 'checkpoints', 'recipes'


@dataclass(frozen=True)
class Run:
    """One trained network.

    Attributes:
        folder: The work dir, or where the evaluation was kept.
        config: Text of the resolved config.
        config_file: Its name.
        checkpoint, sha256: The file that was evaluated, and its hash.
        seed: Of the training, None if unknown.
        versions: Of Python, torch and the OpenMMLab libraries at the evaluation, by name.
        data_sha256: Hash of the images' names and their annotations.
        arrays: The file with what was found in each image.
        command: How to evaluate it again.
    """

    folder: str
    config: str
    config_file: str
    checkpoint: str
    sha256: str
    seed: int | None
    versions: dict[str, str]
    data_sha256: str
    arrays: str
    command: str


@dataclass(frozen=True)
class Side:
    """A network or, with several seeds, a recipe: ``name`` and its ``runs``."""

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

    Attributes:
        above: Probability that it is greater than 0: share of the replicates, mirrored at ``value`` as in the interval;
            of those equal to 0, one half.
        bias: Mean of the replicates less ``value``, which intervals correct for.
        p: Two-sided, from the replicates' standard deviation; in rows by class adjusted for their number (Holm), where
            it decides whether the row may be called a difference.
        paper: The published difference of the two configs, None if there is none.
    """

    above: float | None
    bias: float | None
    p: float | None
    paper: float | None = None


@dataclass(frozen=True)
class Row:
    """A metric.

    Attributes:
        name: Such as ``AP50``, or of a row by class the name of the class.
        group: ``bbox``, ``segm``, a saliency data set, or empty: rows of one table.
        higher_is_better: False for errors.
        sides: A value for each side.
        differences: One for each side after the first.
        paper: The published value of each side, None if there is none.
    """

    name: str
    group: str
    higher_is_better: bool
    sides: tuple[Estimate, ...]
    differences: tuple[Difference, ...]
    paper: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Line:
    """A line of a plot, of one side: ``y`` with the band from ``low`` to ``high``; both may be empty."""

    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A plot with one line for each side: ``title``, labels of both axes, and the values of ``x``."""

    title: str
    group: str
    xlabel: str
    ylabel: str
    x: tuple[float, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy of a side, in bins of equal width.

    Attributes:
        confidence, accuracy: Means in each bin, None in an empty one.
        count: Detections, images or pixels in each bin.
        ece: The expected calibration error, a fraction (Guo et al., ICML 2017, equation 5).
    """

    group: str
    side: str
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    count: tuple[float, ...]
    ece: float | None


@dataclass(frozen=True)
class Confusion:
    """Confusion matrices: annotated classes in rows, found ones in columns.

    Attributes:
        group: ``bbox``, ``segm`` or empty.
        names: Of rows and columns; the last one is the background for detection.
        tables: Counts of each side, of objects, pixels or images; means over its seeds.
    """

    group: str
    names: tuple[str, ...]
    tables: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True)
class Images:
    """The evaluated images, in the order of the data set, with their own score in [0, 1] by side.

    Attributes:
        names: Paths as the first run saw them; image i is also sample i of the data set of each run's config.
        scores: (sides, images); None where there is nothing to find and nothing was found.
        score: What the score is, such as ``F1 of boxes at score 0.3``.
    """

    names: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    score: str


@dataclass(frozen=True)
class Setting:
    """A setting that is not the same in the configs of all sides.

    Attributes:
        key, values: Such as ``model.backbone.depth``, and a text for each side, ``-`` where it has none.
        belongs: Such as ``architecture``; empty if it is none of what may differ when backbones are compared.
    """

    key: str
    values: tuple[str, ...]
    belongs: str


@dataclass(frozen=True)
class Start:
    """What a part of a side's network started from: the name of a checkpoint, or ``random weights``.

    Hash (the first digits, as its publisher names them), recipe and licence are empty if they are unknown.
    """

    side: str
    part: str
    name: str
    sha256: str = ''
    recipe: str = ''
    licence: str = ''


@dataclass(frozen=True)
class Cost:
    """What one image costs a side in testing; None stands for what was not measured.

    Attributes:
        macs, size: Multiply-adds for an image of ``size`` (height, width).
        milliseconds: Median time of an image, from the prepared image to its predictions.
        ratio: Median of this time over that of the first side in the same turn.
        memory: Most bytes of tensors at a time, beside the weights.
    """

    side: str
    parameters: int | None
    macs: int | None
    size: tuple[int, int] | None
    milliseconds: Estimate
    ratio: Estimate
    memory: int | None


@dataclass(frozen=True)
class Comparison:
    """A comparison of two or more sides on the same images.

    Attributes:
        task: ``detection``, ``segmentation``, ``classification`` or ``saliency``; masks of instances are the group
            ``segm`` of detection.
        level: ``checkpoints``: one run a side, or ``recipes``: several seeds on each side.
        command: How to repeat the comparison.
        seed, samples: Of the bootstrap.
        banners: What makes the comparison doubtful, to be shown in red at the top; empty if nothing does.
        metrics: All metric rows; the first one is the task's main metric.
        by_class: The main metric by class, differences with adjusted p.
        errors: The AP that each kind of error costs (Bolya et al., TIDE, ECCV 2020); detection only.
        metric: What the rows of ``by_class`` are, by group, such as ``{'bbox': 'AP'}``.
        settings, starts: What differs in the configs, and the starting weights.
        costs: One for each side; ``cost_note`` says where and how it was measured, or why it was not.
    """

    task: str
    level: str
    command: str
    seed: int
    samples: int
    banners: tuple[str, ...]
    sides: tuple[Side, ...]
    classes: tuple[str, ...]
    metrics: tuple[Row, ...]
    by_class: tuple[Row, ...]
    metric: dict[str, str]
    curves: tuple[Curve, ...]
    calibration: tuple[Calibration, ...]
    errors: tuple[Row, ...]
    confusions: tuple[Confusion, ...]
    images: Images
    settings: tuple[Setting, ...] = ()
    starts: tuple[Start, ...] = ()
    costs: tuple[Cost, ...] = ()
    cost_note: str = ''


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

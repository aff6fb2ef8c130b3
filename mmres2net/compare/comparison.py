"""From tested runs to the values of a comparison."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mmengine.config import Config

from mmres2net.compare import result as parts
from mmres2net.compare import statistics
from mmres2net.compare.metrics import ERRORS, Measured, calibration, measure, task_of
from mmres2net.compare.runs import Evaluated, check_comparable
from mmres2net.compare.statistics import Array, interval
from mmres2net.data.layout import dataset_of_test
from mmres2net.engine.config import load_config, single_process_norms
from mmres2net.paths import config_dir, list_configs

Published = Mapping[str, Any]
SIZES = {'s': ' small', 'm': ' medium', 'l': ' large'}


class Bootstrap:
    """The weights of a number of images and of the ``seeds`` of each side in ``samples`` replicates."""

    def __init__(self, seeds: Sequence[int], images: int, samples: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.draws = statistics.draw_images(images, samples, rng)
        self.weights = [statistics.draw_seeds(number, samples, rng) for number in seeds]

    def side(self, i: int, runs: Sequence[Array], other: int = 0) -> Array:
        """Return the replicates (R, ...) of a side, where ``other`` more degrees of freedom tell how seeds vary."""
        return statistics.pooled(np.stack(runs), self.weights[i], max(len(runs) - 1 + other, 1))

    def row(
        self, key: tuple[str, str], runs: Sequence[Sequence[Array]], paper: Sequence[float | None] = ()
    ) -> parts.Row:
        """Return the row of a metric from the replicates (R,) of the runs of each side."""
        differences = []
        for i, one in list(enumerate(runs))[1:]:
            known = [value for value in (paper[0], paper[i]) if value is not None] if paper else []
            gap = known[1] - known[0] if len(known) == 2 else None
            replicates = self.side(i, one, len(runs[0]) - 1) - self.side(0, runs[0], len(one) - 1)
            differences.append(statistics.difference(replicates, gap))
        sides = tuple(statistics.estimate(self.side(i, one)) for i, one in enumerate(runs))
        return parts.Row(key[1], key[0], key[1] not in ERRORS, sides, tuple(differences), tuple(paper))


def compare(sides: dict[str, list[Evaluated]], *, samples: int, seed: int, command: str) -> parts.Comparison:
    """Return the comparison of runs on the same images. A UserError says that they cannot be compared."""
    banners = check_comparable(sides)
    runs = [[one.arrays for one in tested] for tested in sides.values()]
    first = runs[0][0]
    boot = Bootstrap([len(side) for side in runs], len(first['images']), samples, seed)
    found = [[measure(arrays, boot.draws) for arrays in side] for side in runs]
    published = [published_of(tested[0].cfg) for tested in sides.values()]
    classes = tuple(map(str, first['classes']))

    def rows(pick: Callable[[Measured], Mapping[tuple[str, str], Array]], paper: bool = False) -> tuple[parts.Row, ...]:
        return tuple(
            boot.row(key, [[pick(run)[key] for run in side] for side in found], _paper(key, published) if paper else ())
            for key in pick(found[0][0])
        )

    one, confusions = found[0][0], []
    for group in one.confusion:
        tables = [np.mean([run.confusion[group] for run in side], 0) for side in found]
        more = ['background'] if len(tables[0]) > len(classes) else []
        confusions.append(parts.Confusion(group, (*classes, *more), parts.plain(tables)))
    by_class = [
        _adjusted(rows(lambda run: {(group, name): run.by_class[group][1][:, k] for k, name in enumerate(classes)}))  # noqa: B023
        for group in one.by_class
    ]
    curves = [_curve(boot, [[run.plots[i] for run in side] for side in found]) for i in range(len(one.plots))]
    scores = parts.plain([np.mean([run.scores for run in side], 0) for side in found])
    level = parts.RECIPES if all(len(side) > 1 for side in runs) else parts.CHECKPOINTS
    return parts.Comparison(
        task=task_of(first), level=level, command=command, seed=seed, samples=samples, banners=tuple(banners),
        sides=tuple(parts.Side(name, tuple(one.run for one in tested)) for name, tested in sides.items()),
        classes=classes, metrics=rows(lambda run: run.metrics, paper=True),
        by_class=tuple(row for group in by_class for row in group),
        metric={group: name for group, (name, _) in one.by_class.items()},
        curves=tuple(curves), calibration=tuple(_calibrations(list(sides), found)),
        errors=tuple(replace(row, higher_is_better=False) for row in rows(lambda run: run.errors)),
        confusions=tuple(confusions), images=parts.Images(tuple(map(str, first['images'])), scores, one.score),
    )  # fmt: skip


def _adjusted(rows: Sequence[parts.Row]) -> Iterable[parts.Row]:
    """Yield the rows of all classes with their p values adjusted for the number of classes."""
    columns = [statistics.holm([row.differences[i].p for row in rows]) for i in range(len(rows[0].differences))]
    for row, values in zip(rows, zip(*columns, strict=True), strict=True):
        yield replace(row, differences=tuple(replace(d, p=p) for d, p in zip(row.differences, values, strict=True)))


def _curve(boot: Bootstrap, plots: Sequence[Sequence[Any]]) -> parts.Curve:
    one, lines = plots[0][0], []
    for i, side in enumerate(plots):
        replicates = boot.side(i, [plot.values for plot in side])
        low, high = (np.clip(band, 0, 1) for band in interval(replicates))
        lines.append(parts.Line(parts.plain(replicates[0]), parts.plain(low), parts.plain(high)))
    return parts.Curve(one.title, one.group, one.xlabel, one.ylabel, parts.plain(one.x), tuple(lines))


def _calibrations(names: Sequence[str], found: Sequence[Sequence[Measured]]) -> Iterable[parts.Calibration]:
    for group in found[0][0].confidence:
        for name, side in zip(names, found, strict=True):
            pairs = [run.confidence[group] for run in side]
            confidence, right = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
            yield parts.Calibration(group, name, *map(parts.plain, calibration(confidence, right)))


def _paper(key: tuple[str, str], published: Sequence[Published]) -> list[float | None]:
    """Return the published value of a metric for each side; none at all if two sides' values are from two sources."""
    if len({str(one.get('source')) for one in published if one}) > 1:
        return [None] * len(published)
    group, name = key
    kind = {'bbox': 'box', 'segm': 'mask'}.get(group)
    label = f'{kind} {name[:2]}{SIZES.get(name[2:], name[2:])}' if kind else f'{group} {name}'.strip()
    label = label.replace('accuracy', 'error').replace('maxF', 'F')  # as the metafile names it
    values = [one.get('metrics', {}).get(label) for one in published]
    return [100 - value if value is not None and label.endswith('error') else value for value in values]


def published_of(cfg: Config) -> Published:
    """Return the target in the metafile of the shipped config that ``cfg`` is, in model and data; {} if it is none."""
    metafile = config_dir() / 'metafile.yml'
    if not metafile.is_file():
        return {}
    entries = yaml.safe_load(metafile.read_text())['configs']
    for name in list_configs():
        if Path(name).name == Path(cfg.filename or '').name and 'target' in entries.get(name, {}):
            shipped, _ = single_process_norms(load_config(name))
            data = [dataset_of_test(one) for one in (shipped, cfg)]
            same = [(str(one.get('type')), Path(str(one.get('ann_file'))).name) for one in data]
            if shipped.model == single_process_norms(cfg)[0].model and same[0] == same[1]:
                return entries[name]['target']
    return {}

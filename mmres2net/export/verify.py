"""An exported file compared with its model, in the file's own runtime, on real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config

from mmres2net.data.layout import datasets_of
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.errors import UserError
from mmres2net.export.compare import Row, compare_classes, compare_detections, compare_maps
from mmres2net.export.eager import results_of
from mmres2net.export.source import Source
from mmres2net.predict.facts import Facts
from mmres2net.predict.images import fitted, read_image, resize
from mmres2net.predict.job import SUFFIXES, images_in
from mmres2net.predict.runtimes import Session

Array = npt.NDArray[Any]
COUNT = 2
LEAST = 33  # pixels: the last stage of a network then still has two
SMALLER = (0.75, 0.9)  # height and width of the second image against the first: another size and another shape


def images_for(cfg: Config, named: Sequence[str]) -> tuple[list[Array], str]:
    """Return images to compare on, and where they come from.

    Args:
        cfg: The config, whose test images are taken where they are there.
        named: Files and folders of the user's, taken instead.

    Raises:
        UserError: One of ``named`` is not there or no image.
    """
    paths = images_in(named) if named else _test_images(cfg)
    if paths:
        chosen = (paths * COUNT)[:COUNT]
        return [read_image(path) for path in chosen], ', '.join(path.name for path in dict.fromkeys(chosen))
    return [draw_scene(DEFAULT_SPEC, 'val', index).image for index in range(COUNT)], 'drawn shapes'


def _test_images(cfg: Config) -> list[Path]:
    for dataset in datasets_of(cfg, 'test'):
        prefix = dataset.get('data_prefix')
        folders = [value for value in (prefix or {}).values() if isinstance(value, str)] or ['']
        for folder in folders:
            place = Path(dataset.get('data_root') or '', folder)
            found = sorted(path for path in place.glob('*') if path.suffix.lower() in SUFFIXES) if prefix else []
            if found:
                return found[:COUNT]
    return []


def sized(images: Sequence[Array], session_size: tuple[int, int] | None, wanted: tuple[int, int] | None) -> list[Array]:
    """Return ``images`` in the sizes that are compared: one size where the file is fixed, else two.

    Args:
        images: (H, W, 3) each.
        session_size: Height and width that the file takes alone, or None.
        wanted: Height and width to fit into; None: as the images are.
    """
    if session_size:
        return [resize(image, session_size) for image in images]
    out = []
    for index, image in enumerate(images):
        size = (image.shape[0], image.shape[1])
        height, width = fitted(size, (wanted[1], wanted[0]), True) if wanted else size
        if index % 2:
            height, width = int(height * SMALLER[0]), int(width * SMALLER[1])
        out.append(resize(image, (max(height, LEAST), max(width, LEAST))))
    return out


def verify(session: Session, source: Source, images: Sequence[Array], tolerance: float) -> Iterator[Row]:
    """Compare the file with the eager model on each image and, where it takes batches, on a batch of two.

    Args:
        session: The open file.
        source: The model that it was made from.
        images: (H, W, 3) uint8, RGB, of sizes that the file takes.
        tolerance: See :mod:`mmres2net.export.compare`.

    Raises:
        UserError: The runtime does not run the file.
    """
    for image in images:
        title = f'{image.shape[0]}x{image.shape[1]}'
        yield from _rows(session, source, [image], title, tolerance)
    if session.facts.batch:
        image = images[-1]
        title = f'{image.shape[0]}x{image.shape[1]}, batch'
        yield from _rows(session, source, [image, image[:, ::-1]], title, tolerance)


def _rows(session: Session, source: Source, images: Sequence[Array], title: str, tolerance: float) -> Iterator[Row]:
    facts = session.facts
    batch = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    try:
        results = dict(zip(facts.outputs, session.run(batch), strict=True))
    except Exception as error:  # what a runtime raises is its own affair
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        yield Row(f'{title}: runs', np.inf, 0.0, f'the runtime stops: {words}')
        return
    for index, image in enumerate(images):
        expected = results_of(source, facts.task, np.ascontiguousarray(image))
        single = facts.task == 'detection'  # its results have no dimension of the batch
        got = results if single else {name: value[index] for name, value in results.items()}
        for row in _compared(source, facts, (image.shape[0], image.shape[1]), expected, got, tolerance):
            place = f' of {len(images)}, {index + 1}.' if len(images) > 1 else ''
            yield replace(row, part=f'{title}{place}: {row.part}')


def _compared(
    source: Source,
    facts: Facts,
    size: tuple[int, int],
    expected: dict[str, Array],
    got: dict[str, Array],
    tolerance: float,
) -> Iterator[Row]:
    if facts.task == 'backbone':
        for name, one in zip(facts.outputs, expected.values(), strict=True):
            yield compare_maps(name, one, got[name], tolerance)
    elif facts.task == 'segmentation':
        yield compare_maps('logits', expected['logits'], got['logits'], tolerance)
        yield from compare_classes(expected['classes'], got['classes'], tolerance)
    else:
        yield from compare_detections(
            expected,
            got,
            size,
            tolerance,
            least_score=facts.score_threshold,
            most=int(source.model.roi_head.test_cfg.max_per_img),
            mask_threshold=facts.mask_threshold,
        )


def fault_of(rows: Sequence[Row], task: str) -> str:
    """Return why a file is not to be trusted; nothing where all rows are good and something was compared."""
    bad = [row for row in rows if not row.good]
    if bad:
        return f'{len(bad)} of {len(rows)} comparisons are beyond their tolerance'
    if task == 'detection' and not any('boxes' in row.part for row in rows):
        return (
            'the model detects nothing in these images, so no box was compared: name others with --images, or lower '
            'the threshold, --cfg-options model.test_cfg.rcnn.score_thr=...'
        )
    return ''


def table(rows: Sequence[Row]) -> str:
    """Return the comparisons as aligned text."""
    width = max(len(row.part) for row in rows)
    return '\n'.join(
        f'  {row.part:<{width}}  {row.difference:9.2e}  (allowed {row.tolerance:.0e})  '
        f'{"ok" if row.good else "NOT EQUAL"}{f"  {row.words}" if row.words else ""}'
        for row in rows
    )


def check_tolerance(tolerance: float) -> float:
    """Return ``tolerance`` if it is one.

    Raises:
        UserError: It is not between 0 and 0.1.
    """
    if not 0 < tolerance <= 0.1:
        raise UserError(f'--tolerance {tolerance}: choose more than 0 and at most 0.1; 1e-3 is the default')
    return tolerance

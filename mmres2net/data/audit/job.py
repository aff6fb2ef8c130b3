"""Audit a config's data: read every file that it names, in parallel, and report what is wrong with them."""

from __future__ import annotations

import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from tqdm import tqdm

from mmres2net.data.audit.image import Checked, check_sample
from mmres2net.data.audit.report import Finding, Report
from mmres2net.data.audit.split import Sample, Split, misfit

BLOCK = 2048  # samples handed to the threads at once: what waits there stays small whatever the data set


def audit(splits: Sequence[Split], *, workers: int = 8) -> list[Report]:
    """Decode every image and mask of ``splits``, check their annotations, and return a report for each split.

    Decoding releases Python's lock, so threads suffice; only the images that they are at are in memory. Progress is
    shown where stderr is a terminal.

    Raises:
        ValueError: ``workers`` is less than 1.
    """
    if workers < 1:
        raise ValueError(f'workers={workers}: choose 1 or more')
    total = sum(len(split.samples) for split in splits)
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=total, unit=' images', disable=not sys.stderr.isatty()) as progress,
    ):
        warnings.simplefilter('ignore')  # Pillow's, of odd metadata: a finding says what matters
        reports = []
        for split in splits:
            progress.set_description(split.part)
            reports.append(_audit(split, pool, progress))
    _find_leaks(reports)
    return reports


def _audit(split: Split, pool: ThreadPoolExecutor, progress: tqdm) -> Report:
    report = Report(split.part, split.source, split.dataset, split.classes, split.unit)
    report.findings = list(split.findings)
    names: set[str] = set()
    for sample, checked in _results(split, pool):
        _add(report, split, sample, checked)
        names.update(thing.label for thing in checked.things if thing.label is not None)
        progress.update()
    if split.check_names is not None and names:
        report.findings += misfit(split.source, partial(split.check_names, sorted(names)))
    return _finished(report)


def _results(split: Split, pool: ThreadPoolExecutor) -> Iterator[tuple[Sample, Checked]]:
    samples = iter(split.samples)
    while block := list(islice(samples, BLOCK)):
        yield from zip(block, pool.map(partial(check_sample, split), block), strict=True)


def _add(report: Report, split: Split, sample: Sample, checked: Checked) -> None:
    """Count one sample in the report."""
    report.images += 1
    report.annotations += len(checked.things)
    report.findings += checked.findings
    for thing in checked.things:
        if thing.label in report.classes or (thing.label is not None and not report.classes):
            report.counts[thing.label] += 1
        elif thing.label is not None:
            report.unknown[thing.label] += 1
        report.crowd += thing.crowd
        report.difficult += thing.difficult
    for value, count in checked.values.items():
        name = split.mask_values.get(value)
        if name:
            report.counts[name] += count
        elif name == '':
            report.ignored += count
    if checked.digest is not None:
        path = os.path.abspath(sample.image)
        if path in report.digests:
            report.findings.append(Finding('image listed twice', path))
        report.digests[path] = checked.digest


def _finished(report: Report) -> Report:
    if any(finding.kind == 'broken annotation file' for finding in report.findings):
        return report
    if not report.images or (report.unit == 'objects' and not report.annotations):
        what = f'{report.images:,} images, {report.annotations:,} annotations'
        report.findings.append(Finding('empty split', report.source, what))
    report.findings += [Finding('empty class', name) for name in report.empty_classes]
    report.findings += [
        Finding('unknown class', name, f'{count:,} objects') for name, count in report.unknown.most_common()
    ]
    for first, *others in _by_digest(report).values():
        if others:
            more = f' and {len(others) - 1} more' if len(others) > 1 else ''
            report.findings.append(Finding('same content twice', first, f'equal to {others[0]}{more}'))
    return report


def _by_digest(report: Report) -> dict[bytes, list[str]]:
    paths: dict[bytes, list[str]] = defaultdict(list)
    for path, digest in report.digests.items():
        paths[digest].append(path)
    return paths


def _find_leaks(reports: Sequence[Report]) -> None:
    """Add to each report what it has in common with the training data, by path and by content."""
    training = [report for report in reports if 'train' in report.part]
    learnt = {path: digest for report in training for path, digest in report.digests.items()}
    contents = {digest: path for path, digest in learnt.items()}
    for report in reports:
        if report in training:
            if 'val' in report.part or 'test' in report.part:  # one set for both
                report.findings.append(Finding('same image in training and evaluation', report.source, report.part))
            continue
        for path, digest in report.digests.items():
            if path in learnt:
                report.findings.append(Finding('same image in training and evaluation', path))
            elif digest in contents:
                what = f'equal to {contents[digest]}'
                report.findings.append(Finding('same content in training and evaluation', path, what))

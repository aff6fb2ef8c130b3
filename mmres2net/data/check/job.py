"""Check data sets: every file in parallel, and what shows only when all samples of a set are known."""

from __future__ import annotations

import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from tqdm import tqdm

from mmres2net.data.check.report import Report
from mmres2net.data.check.sample import Checked, check_sample
from mmres2net.data.formats.base import Finding, Sample, Split, name_findings
from mmres2net.data.formats.masks import binary_fault

BLOCK = 2048  # samples handed to the threads at once: memory stays small whatever the size of the data set


def check_splits(splits: Sequence[Split], *, workers: int = 8, decode: int | None = None) -> list[Report]:
    """Check images, masks and annotations of ``splits``, and return a report for each.

    Decoding releases Python's lock, so threads suffice. Progress is shown where stderr is a terminal.

    Args:
        splits: As :func:`mmres2net.data.formats.read.read_splits` returns them.
        workers: Threads.
        decode: How many samples of each split are decoded, spread over the split; of the others headers and ends are
            read. None: all.

    Raises:
        ValueError: ``workers`` is less than 1.
    """
    if workers < 1:
        raise ValueError(f'workers={workers}: choose 1 or more')
    total = sum(len(split.samples) for split in splits)
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=total, unit=' images', disable=not sys.stderr.isatty(), leave=False) as progress,
    ):
        warnings.simplefilter('ignore')  # Pillow's, of odd metadata: a finding says what matters
        reports = []
        for split in splits:
            progress.set_description(f'checking {split.part}')
            report = Report(split.part, split.source, split.dataset, split.classes, split.unit)
            report.findings = list(split.findings)
            for sample, checked in _results(split, pool, decode):
                _add(report, split, sample, checked)
                progress.update()
            _finish(report, split)
            reports.append(report)
    training = [report for split, report in zip(splits, reports, strict=True) if split.training]
    for split, report in zip(splits, reports, strict=True):
        report.findings += _empty_classes(split, report, training if split.training else [report])
    _find_leaks(splits, reports)
    return reports


def _results(split: Split, pool: ThreadPoolExecutor, decode: int | None) -> Iterator[tuple[Sample, Checked]]:
    count = len(split.samples)
    step = 1 if decode is None else max(-(-count // max(decode, 1)), 1)
    numbered = enumerate(split.samples)
    while block := list(islice(numbered, BLOCK)):
        checks = pool.map(lambda pair: check_sample(split, pair[1], decode=pair[0] % step == 0), block)
        yield from zip((sample for _, sample in block), checks, strict=True)


def _add(report: Report, split: Split, sample: Sample, checked: Checked) -> None:
    """Count one sample in the report."""
    report.images += 1
    report.kept += split.keeps(checked.size, [annotation.label for annotation in checked.annotations])
    report.annotations += len(checked.annotations)
    report.findings += checked.findings
    for annotation in checked.annotations:
        known = annotation.label in report.classes or (annotation.label is not None and not report.classes)
        if known and annotation.label is not None:
            report.counts[annotation.label] += 1
            report.usable += not (annotation.dropped or annotation.ignored)
        elif annotation.label is not None:
            report.unknown[annotation.label] += 1
        report.crowd += annotation.crowd
        report.ignored_objects += annotation.ignored and not annotation.crowd
    if checked.values is not None:
        report.masks_read += 1
        report.values += checked.values
    if checked.readable:
        path = os.path.abspath(sample.image)
        if path in report.digests:
            report.findings.append(Finding('image listed twice', path))
        report.digests[path] = checked.digest or b''


def _finish(report: Report, split: Split) -> None:
    """Add what shows only when all samples are known."""
    for value, count in report.values.items():
        name = split.mask_values.get(value)
        report.counts.update({name: count} if name else {})
        report.ignored += count if name == '' else 0
    if any(finding.kind == 'broken annotation file' for finding in report.findings):
        return
    empty = _why_empty(report, split)
    report.findings += [Finding('empty split', report.source, empty)] if empty else []
    report.findings += name_findings(report.source, report.unknown, report.classes)
    if split.check_names is not None and (report.counts or report.unknown):
        fault = split.check_names([*report.counts, *report.unknown])
        report.findings += [Finding('classes do not fit', report.source, fault)] if fault else []
    for first, *others in _by_digest(report).values():
        if others:
            more = f' and {len(others) - 1} more' if len(others) > 1 else ''
            report.findings.append(Finding('same content twice', first, f'equal to {others[0]}{more}'))


def _why_empty(report: Report, split: Split) -> str:
    """Return why a split leaves no sample to train on or to evaluate; empty if it leaves some."""
    counts = f'{report.images:,} images, {report.annotations:,} annotations'
    if not report.images:
        return counts
    if not report.kept:
        return f'{counts}, but filter_cfg={dict(split.node["filter_cfg"])} leaves no image'
    if report.unit == 'objects' and not split.unlabeled:
        if not sum(report.counts.values()):
            return f'{counts}, none of a class of the config'
        if split.training and not report.usable:
            return f'{counts}, but all of them are left out or ignored in training'
    return ''


def _empty_classes(split: Split, report: Report, together: Sequence[Report]) -> Iterator[Finding]:
    """Yield a finding for each class without an annotation in ``together``: all training sets, or one other set.

    For detection it is a note: a subset of a large data set is sound to train on, and the class is just never
    predicted. In semantic masks it is an error of a training split, as masks with other values are the usual cause; but
    only if all masks were decoded, as large data sets have classes that are in one image of a thousand.
    """
    empty = [name for name in report.classes if not any(other.counts[name] for other in together)]
    if split.unlabeled or any(finding.kind in ('broken annotation file', 'empty split') for finding in report.findings):
        return
    if report.unit != 'pixels':
        kind = 'class without an object'
    elif any(not sample.mask for sample in split.samples):
        return
    elif empty and (binary := binary_fault(split, report.values)) is not None:
        yield binary
        return
    elif any(other.masks_read < other.images for other in together):
        kind = 'class not in the sample'
    else:
        kind = 'class without a pixel' if split.training and split.read_mask is None else 'class without an object'
    held = ', '.join(f'{value}' for value in sorted(report.values)[:20])
    what = f'the masks hold the values {held}' if kind == 'class without a pixel' else ''
    yield from (Finding(kind, name, what) for name in empty)


def _by_digest(report: Report) -> dict[bytes, list[str]]:
    paths: dict[bytes, list[str]] = defaultdict(list)
    for path, digest in report.digests.items():
        if digest:
            paths[digest].append(path)
    return paths


def _find_leaks(splits: Sequence[Split], reports: Sequence[Report]) -> None:
    """Add to each report what it has in common with the training data, by path and by content."""
    both = list(zip(splits, reports, strict=True))
    learned = {path: digest for split, report in both if split.training for path, digest in report.digests.items()}
    contents = {digest: path for path, digest in learned.items() if digest}
    for split, report in both:
        if split.training:
            if 'val' in split.part or 'test' in split.part:  # one set for both
                report.findings.append(Finding('same set in training and evaluation', report.source, report.part))
            continue
        for path, digest in report.digests.items():
            if path in learned:
                report.findings.append(Finding('same image in training and evaluation', path))
            elif digest in contents:
                what = f'equal to {contents[digest]}'
                report.findings.append(Finding('same content in training and evaluation', path, what))

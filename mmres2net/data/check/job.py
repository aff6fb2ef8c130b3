"""Check data sets: every file in parallel, and what shows only when all samples of a set are known."""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence

from mmengine.config import Config

from mmres2net.data.check.config import batch_fault
from mmres2net.data.check.report import Report
from mmres2net.data.check.sample import Checked, check_sample
from mmres2net.data.formats.base import Finding, Sample, Split, name_findings
from mmres2net.data.formats.listed import binary_fault
from mmres2net.data.own.splits import in_threads


def check_splits(
    splits: Sequence[Split],
    cfg: Config | None = None,
    *,
    processes: int = 1,
    workers: int | None = None,
    decode: int | None = None,
) -> list[Report]:
    """Check images, masks and annotations of ``splits``, and return a report for each.

    Decoding releases Python's lock, so threads suffice. Progress is shown where stderr is a terminal.

    Args:
        splits: As :func:`mmres2net.data.formats.read.read_splits` returns them.
        cfg: The config of the run, whose batches are compared with the number of training images.
        processes: Processes of the run.
        workers: Threads; None: one for each core, at most 16.
        decode: How many samples of each split are decoded, at even distances; of the others headers and ends are
            read. None: all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, of odd metadata: a finding says what matters
        reports = [_checked(split, workers, decode) for split in splits]
    training = [report for report in reports if report.split.training]
    for report in reports:
        report.findings += _empty_classes(report, training if report.split.training else [report])
    _find_leaks(reports)
    fault = batch_fault(cfg or Config(), sum(report.kept for report in training), processes) if training else ''
    if fault:
        training[0].findings.append(Finding('config does not fit', training[0].split.source, fault))
    return reports


def _checked(split: Split, workers: int | None, decode: int | None) -> Report:
    report, count = Report(split, findings=list(split.findings)), len(split.samples)
    step = 1 if decode is None else max(-(-count // max(decode, 1)), 1)

    def check(i: int) -> Checked:
        return check_sample(split, split.samples[i], decode=i % step == 0)

    results = in_threads(check, range(count), f'checking {split.part}', workers)
    for sample, checked in zip(split.samples, results, strict=True):
        _add(report, sample, checked)
    _finish(report)
    return report


def _add(report: Report, sample: Sample, checked: Checked) -> None:
    """Count one sample in the report."""
    classes = report.split.classes
    report.images += 1
    report.kept += report.split.keeps(checked.size, [annotation.label for annotation in checked.annotations])
    report.annotations += len(checked.annotations)
    report.findings += checked.findings
    for annotation in checked.annotations:
        if annotation.label is not None and (annotation.label in classes or not classes):
            report.counts[annotation.label] += 1
            report.usable += not (annotation.dropped or annotation.ignored)
        elif annotation.label is not None:
            report.unknown[annotation.label] += 1
        report.crowd += annotation.crowd
        report.ignored_objects += annotation.ignored and not annotation.crowd
    if checked.values is not None:
        report.masks_read += 1
        report.values += checked.values
    if checked.digest is not None:
        path = os.path.abspath(sample.image)
        if path in report.digests:
            report.findings.append(Finding('image listed twice', path))
        report.digests[path] = checked.digest


def _finish(report: Report) -> None:
    """Add what shows only when all samples are known."""
    split = report.split
    for value, count in report.values.items():
        name = split.mask_values.get(value)
        report.counts.update({name: count} if name else {})
        report.ignored += count if name == '' else 0
    if any(finding.kind == 'broken annotation file' for finding in report.findings):
        return
    empty = _why_empty(report)
    report.findings += [Finding('empty split', split.source, empty)] if empty else []
    report.findings += name_findings(split.source, report.unknown, split.classes)
    if split.check_names is not None and (report.counts or report.unknown):
        fault = split.check_names([*report.counts, *report.unknown])
        report.findings += [Finding('classes do not fit', split.source, fault)] if fault else []
    paths: dict[bytes, list[str]] = defaultdict(list)
    for path, digest in report.digests.items():
        if digest:
            paths[digest].append(path)
    for first, *others in paths.values():
        if others:
            more = f' and {len(others) - 1} more' if len(others) > 1 else ''
            report.findings.append(Finding('same content twice', first, f'equal to {others[0]}{more}'))


def _why_empty(report: Report) -> str:
    """Return why a split leaves no sample to train on or to evaluate; empty if it leaves some."""
    split, counts = report.split, f'{report.images:,} images, {report.annotations:,} annotations'
    if not report.images:
        return counts
    if not report.kept:
        return f'{counts}, but filter_cfg={dict(split.node["filter_cfg"])} leaves no image'
    if split.unit == 'objects' and not split.unlabeled:
        if not report.counts.total():
            return f'{counts}, none of a class of the config'
        if split.training and not report.usable:
            return f'{counts}, but all of them are left out or ignored in training'
    return ''


def _empty_classes(report: Report, together: Sequence[Report]) -> Iterator[Finding]:
    """Yield a finding for each class without an annotation in ``together``: all training sets, or one other set.

    For detection it is a note: a subset of a large data set is sound to train on, and the class is just never
    predicted. In semantic masks it is an error of a training split, as masks with other values are the usual cause; but
    only if all masks were decoded, as large data sets have classes that are in one image of a thousand.
    """
    split = report.split
    empty = [name for name in split.classes if not any(other.counts[name] for other in together)]
    kind, what = 'class without an object', ''
    if split.unlabeled or any(finding.kind in ('broken annotation file', 'empty split') for finding in report.findings):
        return
    if split.unit == 'pixels':
        if any(not sample.mask for sample in split.samples):
            return
        if empty and (binary := binary_fault(split, report.values)) is not None:
            yield binary
            return
        if any(other.masks_read < other.images for other in together):
            kind = 'class not in the sample'
        elif split.training and split.read_mask is None:
            held = ', '.join(f'{value}' for value in sorted(report.values)[:20])
            kind, what = 'class without a pixel', f'the masks hold the values {held}'
    yield from (Finding(kind, name, what) for name in empty)


def _find_leaks(reports: Sequence[Report]) -> None:
    """Add to each report what it has in common with the training data, by path and by content."""
    learned = {path: digest for report in reports if report.split.training for path, digest in report.digests.items()}
    contents = {digest: path for path, digest in learned.items() if digest}
    for report in reports:
        part = report.split.part
        if report.split.training:
            if 'val' in part or 'test' in part:  # one set for both
                report.findings.append(Finding('same set in training and evaluation', report.split.source, part))
            continue
        for path, digest in report.digests.items():
            if path in learned:
                report.findings.append(Finding('same image in training and evaluation', path))
            elif digest in contents:
                what = f'equal to {contents[digest]}'
                report.findings.append(Finding('same content in training and evaluation', path, what))

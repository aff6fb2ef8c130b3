"""Check data sets: every file in parallel, what shows only when all samples of a set are known, and the report."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from mmres2net.data.check.sample import Checked, check_sample
from mmres2net.data.formats.base import IGNORED, Finding, Split, in_threads, similar_class
from mmres2net.text import join_some

# A kind is an error if the run fails because of it, or trains on or measures something wrong.
ERRORS = {
    'broken annotation file': 'this split cannot be read',
    'empty split': 'it leaves no sample to train on or to evaluate',
    'missing annotation file': 'listed, but not there',
    'broken annotation': 'an entry that training cannot read, or would misread',
    'classes do not fit': 'the config and the annotations have different classes',
    'misspelled class': 'objects of this name are left out',
    'label without class': 'a number that stands for no class',
    'config does not fit': 'a setting that is wrong for these data',
    'annotation without image': 'it belongs to an image that the file does not list, and is never read',
    'duplicate image id': 'the later entry replaces the earlier',
    'duplicate image': 'each entry trains with a part of its objects, and the others count as background',
    'duplicate annotation id': 'mmdet refuses the file',
    'missing image': 'named by the annotations, but not there',
    'unreadable image': 'damaged, cut short, not an image, or of a format that the image loader cannot read',
    'wrong image size': 'the file has another size than the annotations say, so that boxes are in the wrong place',
    'box that is not finite': 'NaN or infinity',
    'empty box': 'no extent inside the image: training on it gives NaN losses or a wrong target',
    'object without mask': 'this config reads the mask of each object',
    'broken mask of an object': 'a polygon or run lengths that training cannot read',
    'missing mask': 'no mask file for an image of the list',
    'unreadable mask': 'damaged, cut short or not an image',
    'unusable mask': 'it cannot say which pixels have which class',
    'wrong mask size': 'the mask has another size than the image',
    'mask value without class': 'neither a class nor the ignore index; training fails, or ignores it',
    'masks of 0 and 255': 'the object is ignored, and only the background is learned',
    'class without a pixel': 'it cannot be learned: add masks of it, correct their values, or remove the class',
    'empty class folder': 'labels are the order of the folders, and no image has this one',
    'same image in training and evaluation': 'the model is evaluated on images that it was trained on',
}
NOTES = {
    'same set in training and evaluation': 'the metrics do not show how the model does on new images',
    'class without an object': 'its metrics will be missing or zero',
    'unknown class': 'the config does not have it: left out',
    'files left out': 'the data set class does not read this suffix',
    'annotation left out': 'training leaves it out; evaluation counts it as an object that is never found',
    'image without annotations': 'training may filter it out (filter_cfg)',
    'box beyond the image': 'training cuts it at the edge; evaluation does not',
    'polygon left out': 'it has fewer than three points; an object without another polygon is ignored in training',
    'same content in training and evaluation': 'two files, equal byte for byte',
    'EXIF orientation': 'loaders that honor it turn the image; annotations have to be made for the turned one',
}


@dataclass
class Report:
    """What is known of one data set; ``counts`` are, by class name, those of the split's ``unit``."""

    split: Split
    images: int = 0
    kept: int = 0  # images that filter_cfg keeps
    annotations: int = 0
    usable: int = 0  # annotations that training takes as targets
    ignored: int = 0  # pixels of semantic masks
    values: Counter[int] = field(default_factory=Counter)  # of semantic masks: pixels by value
    masks_read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)  # of each readable image file, by its path

    @property
    def title(self) -> str:
        """Part, class and source of the data set."""
        return f'{self.split.part}: {self.split.dataset} {self.split.source}'

    def count(self, kinds: dict[str, str]) -> int:
        """Return the number of findings of ``kinds``: ERRORS or NOTES."""
        return sum(finding.kind in kinds for finding in self.findings)

    def kinds(self) -> dict[str, list[Finding]]:
        """Return the findings by kind: errors first, each in the order of the tables above."""
        found: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            found[finding.kind].append(finding)
        return {kind: found[kind] for kind in [*ERRORS, *NOTES] if kind in found}

    def as_text(self, show: int) -> str:
        """Return the report for a terminal, with the first ``show`` findings of each kind."""
        unit, classes, total = self.split.unit, self.split.classes, max(self.counts.total() + self.ignored, 1)
        totals = [f'{self.images:,} images']
        totals += [f'{self.annotations:,} annotations'] if unit == 'objects' else []
        used = sum(self.counts[name] > 0 for name in classes)
        totals += [f'{used} of {len(classes)} classes in use'] if classes and not self.split.unlabeled else []
        totals += [f'{self.ignored / total:.1%} of the pixels ignored'] if self.ignored else []
        number = '{} {:.2%}' if unit == 'pixels' else '{} {:,}'
        by_class = [number.format(k, n / total if unit == 'pixels' else n) for k, n in self.counts.most_common()]
        lines = [f'  {unit} by class: {join_some(by_class, limit=100)}'] if by_class else []
        return '\n'.join([self.title, f'  {", ".join(totals)}', *lines, *self.lines([*ERRORS, *NOTES], show)])

    def lines(self, kinds: Sequence[str], show: int) -> list[str]:
        """Return the findings of ``kinds`` as indented lines, the first ``show`` of each kind."""
        lines = []
        for kind, found in self.kinds().items():
            if kind in kinds:
                severity = 'error' if kind in ERRORS else 'note'
                lines.append(f'  {severity}: {len(found):,} x {kind} ({(ERRORS | NOTES)[kind]})')
                for _, where, what in found[:show]:
                    lines.append('      ' + (what if what.startswith(where) else f'{where}: {what}'.rstrip(': ')))
                lines += [f'      and {len(found) - show:,} more'] if len(found) > show > 0 else []
        return lines

    def add(self, checked: Checked) -> None:
        """Count one sample."""
        self.images += 1
        self.kept += self.split.unlabeled or self.split.keeps(checked.size, [one.label for one in checked.annotations])
        self.annotations += len(checked.annotations)
        self.findings += checked.findings
        for one in checked.annotations:
            if one.label is not None:
                known = not self.split.classes or one.label in self.split.classes
                (self.counts if known else self.unknown)[one.label] += 1
                self.usable += known and not (one.dropped or one.ignored)
        if checked.values is not None:
            self.masks_read += 1
            self.values += checked.values
        if checked.digest is not None:
            self.digests[os.path.abspath(checked.image)] = checked.digest

    def finish(self) -> None:
        """Add what shows only when all samples are known."""
        split = self.split
        for value, count in self.values.items():
            name = split.mask_values.get(value)
            self.counts.update({name: count} if name else {})
            self.ignored += count if name == '' else 0
        kinds = {finding.kind for finding in self.findings}
        if 'broken annotation file' in kinds or ('classes do not fit' in kinds and not split.samples):
            return
        empty = self._why_empty()
        self.findings += [Finding('empty split', split.source, empty)] if empty else []
        for name, count in self.unknown.most_common():
            close = similar_class(name, split.classes)
            what = f'{count:,} objects of {name!r} are left out; the config has {close!r}: write both alike'
            unknown = Finding('unknown class', name, f'{count:,} objects')
            self.findings.append(Finding('misspelled class', split.source, what) if close else unknown)
        if split.check_names is not None and (self.counts or self.unknown):
            fault = split.check_names([*self.counts, *self.unknown])
            self.findings += [Finding('classes do not fit', split.source, fault)] if fault else []

    def _why_empty(self) -> str:
        split, counts = self.split, f'{self.images:,} images, {self.annotations:,} annotations'
        if not self.images:
            return counts
        if not self.kept:
            return f'{counts}, but filter_cfg={dict(split.node["filter_cfg"])} leaves no image'
        if split.unit == 'objects' and not split.unlabeled:
            if not self.counts.total():
                return f'{counts}, none of a class of the config'
            if split.training and not self.usable:
                return f'{counts}, but all of them are left out or ignored in training'
        return ''


def verdict(reports: Sequence[Report]) -> str:
    """Return the last line of a check: how many errors and notes there are."""
    errors, notes = (sum(report.count(kinds) for report in reports) for kinds in (ERRORS, NOTES))
    return ', '.join(f'{n or "no"} {name}' + 's' * (n != 1) for n, name in ((errors, 'error'), (notes, 'note')))


def check_splits(splits: Sequence[Split], *, decode: int | None = None) -> list[Report]:
    """Check images, masks and annotations of ``splits``, and return a report for each.

    Of each split ``decode`` samples (None: all) are decoded, at even distances; of the others headers and ends are
    read. Decoding releases Python's lock, so threads suffice.
    """
    reports = []
    for split in splits:
        report, count = Report(split, findings=list(split.findings)), len(split.samples)
        step = 1 if decode is None else max(-(-count // max(decode, 1)), 1)
        check = partial(check_sample, split, step)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow's, of odd metadata: a finding says what matters
            for checked in in_threads(check, range(count), f'checking {split.part}'):
                report.add(checked)
        report.finish()
        reports.append(report)
    training = [report for report in reports if report.split.training]
    for report in reports:
        report.findings += _empty_classes(report, training if report.split.training else [report])
    _find_leaks(reports)
    return reports


def _empty_classes(report: Report, together: Sequence[Report]) -> Iterator[Finding]:
    """Yield a finding for each class without an annotation in ``together``: all training sets, or one other set.

    It is an error in semantic masks for training that were all decoded: masks with other values are the usual cause.
    """
    split = report.split
    empty = [name for name in split.classes if not any(other.counts[name] for other in together)]
    kind, what = 'class without an object', ''
    if split.unlabeled or any(finding.kind in ('broken annotation file', 'empty split') for finding in report.findings):
        return
    if split.unit == 'pixels':
        if any(not sample.mask for sample in split.samples):
            return
        meanings, held = split.mask_values, set(report.values)
        if empty and IGNORED in held <= {0, IGNORED} and not meanings.get(IGNORED) and len({*meanings.values()}) < 4:
            what = f'the masks hold 0 and {IGNORED}, ignored; save them with the numbers of classes, as 0 and 1'
            yield Finding('masks of 0 and 255', split.source, what)
            return
        if any(other.masks_read < other.images for other in together):
            what = 'no mask of the sample has it; check-data reads all masks'
        elif split.training and split.read_mask is None:
            kind, what = 'class without a pixel', f'the masks hold the values {join_some(sorted(held), limit=20)}'
    yield from (Finding(kind, name, what) for name in empty)


def _find_leaks(reports: Sequence[Report]) -> None:
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

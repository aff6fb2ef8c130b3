"""What an audit of the data finds: kinds of findings, the report of a split, and both as text and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# What it means for a run. Errors end the command with status 1: the run fails, or learns or measures something wrong.
ERRORS = {
    'broken annotation file': 'nothing of this split can be read',
    'empty split': 'there is nothing to train on or to measure',
    'missing annotation file': 'listed, but not there',
    'broken annotation': 'an entry that cannot be read as what it should be',
    'classes do not fit': 'the config and the annotations have different classes',
    'label without class': 'a number that stands for no class',
    'annotation without image': 'it belongs to an image that the file does not list, and is never read',
    'duplicate image id': 'the later entry replaces the earlier',
    'duplicate annotation id': 'the later entry replaces the earlier',
    'missing image': 'named by the annotations, but not there',
    'unreadable image': 'damaged, cut short or not an image',
    'unusable image': 'the data set cannot be trained on or measured with it as it is',
    'wrong image size': 'the file has another size than the annotations say, and boxes lie elsewhere',
    'empty box': 'no width or no height, or its corners are in the wrong order; dropped in silence, or a wrong target',
    'box outside the image': 'it leaves the image by more than a pixel',
    'broken polygon': 'fewer than three points, or a coordinate without its partner',
    'polygon outside the image': 'it leaves the image by more than a pixel',
    'broken run lengths': 'an RLE mask that does not decode',
    'wrong run-length size': 'an RLE mask of another size than the image',
    'missing mask': 'no mask file for an image of the list',
    'unreadable mask': 'damaged, cut short or not an image',
    'colour mask': 'a mask has to hold class numbers in one channel, not colours',
    'unusable mask': 'it cannot say which pixels have which class',
    'wrong mask size': 'the mask has another size than the image',
    'mask value without class': 'neither a class nor the ignore index; training fails, or ignores it',
    'same image in training and evaluation': 'the evaluation measures what was learnt by heart',
}
NOTES = {
    'empty class': 'no annotation has it: its figures will be missing or zero',
    'unknown class': 'the config does not have it: dropped in silence',
    'image without annotations': 'training may filter it out (filter_cfg)',
    'tiny box': 'at most a pixel wide or high; mmdet drops boxes under one pixel',
    'mask without class': 'every pixel is ignored',
    'mask of one class': 'nothing, or all of the image, is salient',
    'image listed twice': 'the same file under two entries counts twice',
    'same content twice': 'two files of one split are equal byte for byte',
    'same content in training and evaluation': 'two files, equal byte for byte',
    'EXIF orientation': 'loaders that honour it turn the image; annotations have to be made for the turned one',
    'grey image': 'loaders make it three equal channels',
    'image with alpha': 'loaders drop the alpha channel',
    'palette image': 'loaders look its colours up',
    'CMYK image': 'loaders convert it, not all to the same colours',
    'deep image': 'more than 8 bits a channel, of which loaders keep 8',
}
UNBROKEN = '\xa0'  # a space at which no line is broken
LISTED_CLASSES = 100  # a data set with more of them shows the first and counts the rest


class Finding(NamedTuple):
    """One fault, or one thing worth knowing: its kind, the file (and entry) it is in, and what exactly is there."""

    kind: str
    where: str
    what: str = ''


@dataclass
class Report:
    """What is known of one data set of a config.

    ``counts`` holds, by class name, ``unit``: objects, images or, for semantic masks, pixels.
    """

    part: str
    source: str
    dataset: str
    classes: tuple[str, ...] = ()
    unit: str = 'objects'
    images: int = 0
    annotations: int = 0
    crowd: int = 0
    difficult: int = 0
    ignored: int = 0  # pixels of semantic masks
    counts: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)  # of each readable image file, by its path

    @property
    def empty_classes(self) -> list[str]:
        """Classes of the config that nothing is annotated with."""
        return [name for name in self.classes if not self.counts[name]]

    def count(self, kinds: dict[str, str]) -> int:
        """Return the number of findings of ``kinds``: ERRORS or NOTES."""
        return sum(finding.kind in kinds for finding in self.findings)

    def kinds(self) -> dict[str, list[Finding]]:
        """Return the findings by kind: errors first, each in the order of the tables above."""
        found: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            found[finding.kind].append(finding)
        return {kind: found[kind] for kind in [*ERRORS, *NOTES] if kind in found}

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the digests, as JSON has it."""
        return {
            'part': self.part,
            'source': self.source,
            'dataset': self.dataset,
            'images': self.images,
            'annotations': self.annotations,
            'crowd': self.crowd,
            'difficult': self.difficult,
            'ignored': self.ignored,
            'unit': self.unit,
            'classes': {name: self.counts[name] for name in self.classes},
            'empty_classes': self.empty_classes,
            'unknown_classes': dict(self.unknown),
            'errors': {k: [_entry(f) for f in found] for k, found in self.kinds().items() if k in ERRORS},
            'notes': {k: [_entry(f) for f in found] for k, found in self.kinds().items() if k in NOTES},
        }

    def as_text(self, show: int) -> str:
        """Return the report for a terminal, with the first ``show`` findings of each kind."""
        lines = [f'{self.part}: {self.dataset} {self.source}', f'  {self._totals()}']
        if self.counts:
            lines.append(_wrapped(f'{self.unit} by class: {self._class_counts()}'))
        for kind, found in self.kinds().items():
            severity, meaning = ('error', ERRORS[kind]) if kind in ERRORS else ('note', NOTES[kind])
            lines.append(f'  {severity}: {len(found):,} x {kind} ({meaning})')
            lines += [
                f'      {finding.where}' + (f': {finding.what}' if finding.what else '') for finding in found[:show]
            ]
            lines += [f'      and {len(found) - show:,} more'] if len(found) > show > 0 else []
        return '\n'.join(lines)

    def _totals(self) -> str:
        totals = [f'{self.images:,} images']
        if self.unit == 'objects':
            kinds = [f'{n:,} {name}' for n, name in ((self.crowd, 'crowd'), (self.difficult, 'difficult')) if n]
            totals.append(f'{self.annotations:,} annotations' + (f' ({", ".join(kinds)})' if kinds else ''))
        if self.classes:
            totals.append(f'{len(self.classes) - len(self.empty_classes)} of {len(self.classes)} classes in use')
        if self.unit == 'pixels' and self.ignored:
            totals.append(f'{_percent(self.ignored, sum(self.counts.values()) + self.ignored)} of the pixels ignored')
        return ', '.join(totals)

    def _class_counts(self) -> str:
        total = sum(self.counts.values()) + self.ignored
        ranked = self.counts.most_common(LISTED_CLASSES)
        shown = [
            f'{name} {_percent(count, total)}' if self.unit == 'pixels' else f'{name} {count:,}'
            for name, count in ranked
        ]
        shown = [text.replace(' ', UNBROKEN) for text in shown]
        more = len(self.counts) - len(ranked)
        return ', '.join(shown) + (f' and {more} classes more' if more else '')


def _entry(finding: Finding) -> dict[str, str]:
    return {'where': finding.where, 'what': finding.what}


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f'{share:.1f}%' if share >= 0.95 else f'{share:.2f}%' if share >= 0.005 else 'under 0.01%'


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(text, width=110, initial_indent='  ', subsequent_indent='    ', break_on_hyphens=False)
    return '\n'.join(lines).replace(UNBROKEN, ' ')


def verdict(reports: Sequence[Report]) -> str:
    """Return the last line of an audit: how many errors and notes there are."""
    errors, notes = (sum(report.count(kinds) for report in reports) for kinds in (ERRORS, NOTES))
    if not errors and not notes:
        return 'no errors, nothing to note'
    return ', '.join([_number(errors, 'error'), _number(notes, 'note')])


def _number(count: int, name: str) -> str:
    return f'{count or "no"} {name}' + ('' if count == 1 else 's')

"""What a check of data found: kinds with their severity, counts, and the report as text and as JSON."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmres2net.data.formats.base import Finding, Split
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
    'duplicate annotation id': 'mmdet refuses the file',
    'missing image': 'named by the annotations, but not there',
    'unreadable image': 'damaged, cut short, not an image, or of a format that the image loader cannot read',
    'unusable image': 'the data set cannot be trained on or measured with it as it is',
    'wrong image size': 'the file has another size than the annotations say, so that boxes are in the wrong place',
    'box that is not finite': 'NaN or infinity',
    'empty box': 'no extent inside the image: training on it gives NaN losses or a wrong target',
    'object without mask': 'this config reads the mask of each object',
    'broken mask of an object': 'a polygon or run lengths that training cannot read',
    'missing mask': 'no mask file for an image of the list',
    'unreadable mask': 'damaged, cut short or not an image',
    'color mask': 'a mask has to hold class numbers in one channel, not colors',
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
    'class not in the sample': 'no mask of the sample has it; check-data reads all masks',
    'unknown class': 'the config does not have it: left out',
    'files left out': 'the data set class does not read this suffix',
    'annotation left out': 'training leaves it out; evaluation counts it as an object that is never found',
    'image without annotations': 'training may filter it out (filter_cfg)',
    'box beyond the image': 'training cuts it at the edge; evaluation does not',
    'tiny box': 'at most a pixel wide or high',
    'polygon left out': 'it has fewer than three points; an object without another polygon is ignored in training',
    'polygon beyond the image': 'it leaves the image by more than a pixel',
    'unread mask of an object': 'broken, but this config reads no masks of objects',
    'mask without class': 'every pixel is ignored',
    'mask of one class': 'no pixel is salient, or all are',
    'image listed twice': 'the same file under two entries counts twice',
    'same content twice': 'two files of one split are equal byte for byte',
    'same content in training and evaluation': 'two files, equal byte for byte',
    'EXIF orientation': 'loaders that honor it turn the image; annotations have to be made for the turned one',
    'gray image': 'loaders make it three equal channels',
    'image with alpha': 'loaders drop the alpha channel',
    'palette image': 'loaders convert it to RGB',
    'CMYK image': 'loaders convert it, not all to the same colors',
    'deep image': 'more than 8 bits per channel, of which loaders keep 8',
}
SEVERITIES = {'error': ERRORS, 'note': NOTES}
# Notes on files that do not change the run: not printed before it.
QUIET = {'image without annotations', 'tiny box', *list(NOTES)[-6:]}
LISTED_CLASSES = 100  # a data set with more of them shows the first and counts the rest
UNBROKEN = '\xa0'  # a space at which no line is broken


@dataclass
class Report:
    """What is known of one data set.

    ``counts`` holds, by class name, what the split's ``unit`` says: objects, images or, for semantic masks, pixels.
    """

    split: Split
    images: int = 0
    kept: int = 0  # images that filter_cfg keeps
    annotations: int = 0
    usable: int = 0  # annotations that training takes as targets
    crowd: int = 0
    ignored_objects: int = 0
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

    @property
    def empty_classes(self) -> list[str]:
        """Classes of the config without an annotation."""
        return [name for name in self.split.classes if not self.counts[name]]

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
        """Return everything except the digests as values of JSON."""
        found = {kind: [{'where': f.where, 'what': f.what} for f in fs] for kind, fs in self.kinds().items()}
        return {
            **{name: getattr(self.split, name) for name in ('part', 'source', 'dataset', 'unit')},
            **{name: getattr(self, name) for name in ('images', 'annotations', 'crowd', 'ignored_objects', 'ignored')},
            'classes': {name: self.counts[name] for name in self.split.classes},
            'empty_classes': self.empty_classes,
            'unknown_classes': dict(self.unknown),
            **{f'{name}s': {k: found[k] for k in found if k in kinds} for name, kinds in SEVERITIES.items()},
        }

    def as_text(self, show: int) -> str:
        """Return the report for a terminal, with the first ``show`` findings of each kind."""
        lines, pixels = [self.title], self.counts.total() + self.ignored
        totals = [f'{self.images:,} images']
        if self.split.unit == 'objects':
            kinds = [f'{n:,} {name}' for n, name in ((self.crowd, 'crowd'), (self.ignored_objects, 'ignored')) if n]
            totals.append(f'{self.annotations:,} annotations' + (f' ({", ".join(kinds)})' if kinds else ''))
        if self.split.classes:
            number = len(self.split.classes)
            totals.append(f'{number - len(self.empty_classes)} of {number} classes in use')
        if self.split.unit == 'pixels' and self.ignored:
            totals.append(f'{_percent(self.ignored, pixels)} of the pixels ignored')
        lines.append(f'  {", ".join(totals)}')
        if self.counts:
            by_class = [
                f'{name} {_percent(n, pixels) if self.split.unit == "pixels" else f"{n:,}"}'.replace(' ', UNBROKEN)
                for name, n in self.counts.most_common()
            ]
            text = f'{self.split.unit} by class: {join_some(by_class, limit=LISTED_CLASSES)}'
            wrapped = textwrap.wrap(text, 110, initial_indent='  ', subsequent_indent='    ', break_on_hyphens=False)
            lines += [line.replace(UNBROKEN, ' ') for line in wrapped]
        return '\n'.join([*lines, *self.lines([*ERRORS, *NOTES], show)])

    def lines(self, kinds: Sequence[str], show: int) -> list[str]:
        """Return the findings of ``kinds`` as indented lines, the first ``show`` of each kind."""
        lines = []
        for kind, found in self.kinds().items():
            if kind in kinds:
                severity = 'error' if kind in ERRORS else 'note'
                lines.append(f'  {severity}: {len(found):,} x {kind} ({SEVERITIES[severity][kind]})')
                for _, where, what in found[:show]:
                    lines.append('      ' + (what if what.startswith(where) else f'{where}: {what}'.rstrip(': ')))
                lines += [f'      and {len(found) - show:,} more'] if len(found) > show > 0 else []
        return lines


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f'{share:.1f}%' if share >= 0.95 else f'{share:.2f}%' if share >= 0.005 else 'under 0.01%'


def verdict(reports: Sequence[Report]) -> str:
    """Return the last line of a check: how many errors and notes there are."""
    found = [(name, sum(report.count(kinds) for report in reports)) for name, kinds in SEVERITIES.items()]
    return ', '.join(f'{n or "no"} {name}' + 's' * (n != 1) for name, n in found)

"""Read PASCAL VOC's annotation format for an audit: a list of images and an XML file for each."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from mmres2net.data.audit.report import Finding
from mmres2net.data.audit.split import Parsed, Sample, Size, Split, Thing
from mmres2net.data.check import check_object_names
from mmres2net.errors import UserError


def read_xml(built: Any, split: Split) -> None:
    """Read the list of a VOC-style split into ``split``; its XML files are parsed one by one later.

    Raises:
        UserError: There is no list that can be read, or the config names no classes.
    """
    if not split.classes:
        raise UserError('the data set has no classes; set metainfo.classes')
    try:
        ids = Path(built.ann_file).read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f'not a list of images: {error}') from error
    root = Path(built.sub_data_root)
    for image_id in ids:
        if not image_id.strip():
            split.findings.append(Finding('broken annotation', split.source, 'an empty line'))
            continue
        image, xml = root / built.img_subdir / f'{image_id}.jpg', root / built.ann_subdir / f'{image_id}.xml'
        split.samples.append(Sample(str(image), raw=str(xml)))
    repeated = [name for name, count in Counter(ids).items() if count > 1 and name.strip()]
    split.findings += [Finding('duplicate image id', split.source, name) for name in repeated]
    split.things = _xml_things
    split.check_names = lambda names: check_object_names(Path(split.source), names, split.classes)


def _xml_things(sample: Sample) -> Parsed:
    try:
        root = ElementTree.parse(sample.raw).getroot()
    except FileNotFoundError:
        return None, [], [Finding('missing annotation file', sample.raw)]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        return None, [], [Finding('broken annotation', sample.raw, str(error))]
    things, findings = [], []
    size: Size | None = None
    try:
        if root.find('size') is not None:
            size = int(root.findtext('size/width', '')), int(root.findtext('size/height', ''))
    except ValueError as error:
        findings.append(Finding('broken annotation', sample.raw, f'size: {error}'))
    for i, node in enumerate(root.iterfind('object')):
        where = f'{sample.raw} object {i + 1}'
        try:
            things.append(_xml_thing(node, where))
        except ValueError as error:
            findings.append(Finding('broken annotation', where, str(error)))
    return size, things, findings


def _xml_thing(node: ElementTree.Element, where: str) -> Thing:
    name = node.findtext('name')
    if not name:
        raise ValueError('no name')
    texts = [node.findtext(f'bndbox/{side}') for side in ('xmin', 'ymin', 'xmax', 'ymax')]
    if any(text is None for text in texts):
        raise ValueError('no bndbox with xmin, ymin, xmax, ymax')
    x1, y1, x2, y2 = (float(text or '') for text in texts)
    difficult = bool(int(node.findtext('difficult') or 0))
    return Thing(where, name, (x1 - 1, y1 - 1, x2, y2), difficult=difficult)  # VOC counts from 1, both ends included

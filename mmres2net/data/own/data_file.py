"""The data file: YAML that says where own data are and what they are, where their folders do not tell.

Also the ``data.yaml`` of YOLO sets is read. Files are data: tags and aliases of YAML are refused.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmres2net.data.formats.base import regular_file
from mmres2net.data.layout import PARTS
from mmres2net.drawing import Color
from mmres2net.errors import UserError
from mmres2net.text import join_some

FORMATS = ('coco', 'voc', 'yolo', 'folders', 'masks')
KEYS = ('format', 'path', *PARTS, 'classes', 'palette', 'val_fraction', 'seed')
LIMIT = 2**20  # bytes of a data file


@dataclass(frozen=True)
class Spec:
    """What a data file says, or what is assumed of a folder without one.

    Attributes:
        root: The folder that ``places`` are relative to.
        format: One of :data:`FORMATS`; empty: to be recognized.
        places: By split: folders of its images and annotations, lists of its images, or its COCO file.
        classes: Names in label order; empty: those of the annotations.
        palette: Colors of the classes; masks in these colors are read by them.
        val_fraction: Share of the training images that becomes the validation set where there is none.
        seed: Of that choice; None: that of the caller.
    """

    root: Path
    format: str = ''
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    val_fraction: float = 0.2
    seed: int | None = None

    def as_yaml(self, options: Mapping[str, Sequence[str]]) -> str:
        """Return the text of a data file; ``options`` are the values that a key can have, the others as a comment."""
        formats = [self.format] if self.format else options.get('format') or FORMATS
        train = (
            '{images: FOLDER OR LIST, annotations: FOLDER}' if formats[0] == 'masks' else 'FOLDER, LIST OR JSON FILE'
        )
        values = {'format': formats, 'path': [str(self.root)], 'train': options.get('train', [train])}
        values |= {part: [str(list(places))] for part, places in self.places.items()}
        values['classes'] = [str(list(self.classes)) if self.classes else 'auto']
        values |= {key: options[key] for key in ('classes', 'palette') if key in options}
        return '\n'.join(
            f'{key}: {first}' + (f'  # or {join_some(others)}' if others else '')
            for key, (first, *others) in values.items()
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file of plain values.

    Raises:
        UserError: It cannot be read as a mapping of names to plain values.
    """
    try:
        text = Path(regular_file(str(path), LIMIT)).read_bytes().decode('utf-8-sig')
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise ValueError('aliases (*NAME) are not read; write the value again')
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f'{path} is not a data file: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f'{path} is not a data file: it needs keys such as {join_some(KEYS, limit=9)}')
    return content


def is_data_file(path: Path) -> bool:
    """Return whether a YAML file has the keys of a data file or of YOLO's ``data.yaml``; a config has not."""
    try:
        content = read_yaml(path)
    except UserError:
        return False
    return 'format' in content or _is_yolo(content)


def _is_yolo(content: Mapping[str, Any]) -> bool:
    names = {'names', 'nc'} & set(content)
    return 'format' not in content and bool(names and {*PARTS, 'path'} & set(content))


def read_data_file(path: Path) -> Spec:
    """Return what a data file says.

    Raises:
        UserError: An unknown key, a value that is not allowed, or a place that is not there.
    """
    content = read_yaml(path)
    yolo = _is_yolo(content)
    if 'kpt_shape' in content:
        raise UserError(f'{path}: kpt_shape: the lines hold keypoints, which are not read; write boxes or polygons')
    if yolo:
        content = {'format': 'yolo', **content, 'classes': _yolo_names(path, content)}
    else:
        for key in [key for key in content if key not in KEYS]:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f'did you mean {close[0]!r}? ' if close else ''
            raise UserError(f'{path}: unknown key {key!r}; {hint}allowed are {join_some(KEYS, limit=9)}')
    fraction, seed, colors = (content.get(key) for key in ('val_fraction', 'seed', 'palette'))
    classes = _names(path, content)
    _check(path, 'format', content.get('format') in FORMATS, content, f'one of {", ".join(FORMATS)}')
    sound = fraction is None or (isinstance(fraction, float) and 0 < fraction < 1)
    _check(path, 'val_fraction', sound, content, 'a number between 0 and 1')
    _check(path, 'seed', seed is None or (type(seed) is int and seed >= 0), content, 'a whole number, 0 or more')
    sound = colors is None or (isinstance(colors, list) and len(colors) == len(classes) and all(map(_is_color, colors)))
    _check(path, 'palette', sound, content, 'a color [R, G, B] for each of classes')
    root, places = _places(path, content, yolo)
    palette = tuple((color[0], color[1], color[2]) for color in colors or ())
    return Spec(root, content['format'], places, classes, palette, fraction or 0.2, seed)


def _check(path: Path, key: str, sound: bool, content: Mapping[str, Any], allowed: str) -> None:
    if not sound:
        raise UserError(f'{path}: {key} is {content.get(key)!r}; write {allowed}')


def _is_color(color: Any) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(type(v) is int and 0 <= v < 256 for v in color)


def _names(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return class names; numbers are names too."""
    names = content.get('classes', 'auto')
    if names in (None, 'auto'):
        return ()
    texts = [str(name).strip() for name in names if type(name) in (str, int)] if isinstance(names, list) else []
    sound = bool(texts) and len(texts) == len(names) and len(set(texts)) == len(texts) and all(texts)
    allowed = 'auto, or a list of names, each once; put words such as yes, no, on and off in quotes'
    _check(path, 'classes', sound, content, allowed)
    return tuple(texts)


def _yolo_names(path: Path, content: Mapping[str, Any]) -> Any:
    """Return the names of YOLO's file: a list, or a mapping of all numbers from 0 on to names."""
    count, names = content.get('nc'), content.get('names') or 'none'
    if isinstance(names, dict):
        numbers = {int(key) if str(key).isdecimal() else key: name for key, name in names.items()}
        if set(numbers) != set(range(len(numbers))):
            raise UserError(f'{path}: names has the keys {join_some(names)}; number the classes from 0 on')
        names = [numbers[i] for i in range(len(numbers))]
    if isinstance(names, list) and count not in (None, len(names)):
        raise UserError(f'{path}: nc is {count!r}, but there are {len(names)} names; make them agree')
    return names


def _places(path: Path, content: Mapping[str, Any], yolo: bool) -> tuple[Path, dict[str, list[str]]]:
    """Return a folder that holds the places of all splits, and these places relative to it."""
    given = content.get('path') or '.'
    _check(path, 'path', isinstance(given, str), content, 'a folder')
    bases = [path.parent / os.path.expanduser(given)]
    bases += [path.parent] if yolo else []  # such a path is often one of the machine that trained last
    base = next((base for base in bases if base.is_dir()), None)
    if base is None:
        raise UserError(f'{path}: path is {given!r}, and there is no folder {bases[0]}')
    named: dict[str, list[str]] = {}
    for part in PARTS:
        value = content.get(part) or []
        value = [one for one in value.values() if one] if isinstance(value, dict) else value
        value = [value] if isinstance(value, str) else value
        sound = isinstance(value, list) and all(isinstance(one, str) and one for one in value)
        _check(path, part, sound, content, 'a folder, a list of images or a COCO file, or a list of these')
        for one in value:
            texts = [one, one.removeprefix('../')] if yolo else [one]  # exports write ../train for train
            found = next((place for b in bases for text in texts if (place := b / text).exists()), None)
            if found is not None:
                named.setdefault(part, []).append(os.path.abspath(found))
            elif not (yolo and part == 'test'):  # written whether there is one or not
                raise UserError(f'{path}: {part} is {one!r}, and there is no {bases[0] / one}')
    root = os.path.commonpath([os.path.abspath(base), *(place for places in named.values() for place in places)])
    return Path(root), {part: [os.path.relpath(place, root) for place in places] for part, places in named.items()}

"""The data file: YAML that says where own data are and what they are, where their folders do not tell.

Also the ``data.yaml`` of YOLO sets is read. Files are data: tags and aliases of YAML are refused.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmres2net.data.formats.base import read_text
from mmres2net.data.layout import PARTS
from mmres2net.drawing import Color
from mmres2net.errors import UserError
from mmres2net.text import join_some

FORMATS = ('coco', 'voc', 'yolo', 'folders', 'masks')
KEYS = ('format', 'path', *PARTS, 'classes', 'palette', 'val_fraction', 'seed')
LIMIT = 2**20  # bytes of a data file
CLASSES = 'auto, or a list of names, each once; put words such as yes, no, on and off in quotes'


@dataclass(frozen=True)
class Spec:
    """What a data file says, or what is assumed of a folder without one."""

    root: Path  # the folder that places are relative to
    format: str = ''  # one of FORMATS; empty: to be recognized
    # By split: folders of its images and annotations, lists of its images, or its COCO file.
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()  # names in label order; empty: those of the annotations
    palette: tuple[Color, ...] = ()  # colors of the classes; masks in these colors are read by them
    val_fraction: float = 0.2  # share of the training images that becomes the validation set where there is none
    seed: int | None = None  # of that choice; None: that of the caller

    def as_yaml(self, options: Mapping[str, Sequence[Any]]) -> str:
        """Return the text of a data file; ``options`` are the values that a key can have, the others as a comment."""
        masks = options['format'][0] == 'masks'
        train = '{images: FOLDER OR LIST, annotations: FOLDER}' if masks else 'FOLDER, LIST OR JSON FILE'
        values: dict[str, Sequence[Any]] = {'format': FORMATS, 'path': [self.root], 'train': [train]}
        values |= {part: [list(places)] for part, places in self.places.items()}
        values |= {'classes': [list(self.classes) or 'auto'], **options}
        more = {key: f'  # or {join_some(others)}' if others else '' for key, (_, *others) in values.items()}
        return '\n'.join(f'{key}: {first}{more[key]}' for key, (first, *_) in values.items())


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file that maps names to plain values; a UserError for any other."""
    text = read_text(path, LIMIT)
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise ValueError('aliases (*NAME) are not read; write the value again')
        content = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
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
    return 'format' not in content and bool({'names', 'nc'} & {*content} and {*PARTS, 'path'} & {*content})


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v < 256 for v in value)


def _names(value: Any) -> list[str]:
    return [str(one).strip() for one in value if type(one) in (str, int)] if isinstance(value, list) else []


def _texts(value: Any) -> Any:
    """Return the places of a split as a list: one, several, or those of images and annotations."""
    value = [one for one in value.values() if one] if isinstance(value, dict) else value or []
    return [value] if isinstance(value, str) else value


def _are_places(value: Any) -> bool:
    return isinstance(_texts(value), list) and all(isinstance(one, str) and one for one in _texts(value))


# What a value that is there has to be, for the reader and for the message.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    'format': (FORMATS.__contains__, f'one of {", ".join(FORMATS)}'),
    'path': (lambda v: isinstance(v, str), 'a folder'),
    **dict.fromkeys(PARTS, (_are_places, 'a folder, a list of images or a COCO file, or a list of these')),
    'classes': (lambda v: v == 'auto' or 0 < len({*_names(v)} - {''}) == len(v), CLASSES),
    'palette': (lambda v: isinstance(v, list) and all(map(_is_color, v)), 'a color [R, G, B] for each of classes'),
    'val_fraction': (lambda v: isinstance(v, float) and 0 < v < 1, 'a number between 0 and 1'),
    'seed': (lambda v: type(v) is int and v >= 0, 'a whole number, 0 or more'),
}


def read_data_file(path: Path) -> Spec:
    """Return what a data file says, or raise a UserError: an unknown key, a wrong value, a place that is not there."""
    content = read_yaml(path)
    yolo = _is_yolo(content)
    if 'kpt_shape' in content:
        raise UserError(f'{path}: kpt_shape: the lines hold keypoints, which are not read; write boxes or polygons')
    if yolo:
        content = {'format': 'yolo', **content, 'classes': _yolo_names(path, content)}
    elif unknown := [key for key in content if key not in KEYS]:
        raise UserError(f'{path}: unknown key {unknown[0]!r}; allowed are {join_some(KEYS, limit=9)}')
    given = {'format': None, **{key: value for key, value in content.items() if value is not None}}
    wrong = [key for key, (is_sound, _) in RULES.items() if key in given and not is_sound(given[key])]
    classes, colors = _names(given.get('classes')), given.get('palette', ())
    if wrong or (colors and len(colors) != len(classes)):
        key = next(iter(wrong), 'palette')
        named = 'names' if yolo and key == 'classes' else key
        raise UserError(f'{path}: {named} is {given[key]!r}; write {RULES[key][1]}')
    root, places = _places(path, given, yolo)
    palette = tuple((color[0], color[1], color[2]) for color in colors)
    fraction, seed = given.get('val_fraction', 0.2), given.get('seed')
    return Spec(root, given['format'], places, tuple(classes), palette, fraction, seed)


def _yolo_names(path: Path, content: Mapping[str, Any]) -> Any:
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
    bases = [path.parent / os.path.expanduser(content.get('path') or '.')]
    bases += [path.parent] if yolo else []  # such a path is often one of the machine that trained last
    base = next((base for base in bases if base.is_dir()), None)
    if base is None:
        raise UserError(f'{path}: path is {content["path"]!r}, and there is no folder {bases[0]}')
    named: dict[str, list[str]] = {}
    for part in PARTS:
        for one in _texts(content.get(part)):
            texts = [one, (plain := one.replace('\\', '/')), plain.removeprefix('../')] if yolo else [one]  # ../x is x
            found = next((place for b in bases for text in texts if (place := b / text).exists()), None)
            if found is not None:
                named.setdefault(part, []).append(os.path.abspath(found))
            elif not (yolo and part == 'test'):  # written whether there is one or not
                raise UserError(f'{path}: {part} is {one!r}, and there is no {bases[0] / one}')
    root = os.path.commonpath([os.path.abspath(base), *(place for places in named.values() for place in places)])
    return Path(root), {part: [os.path.relpath(place, root) for place in places] for part, places in named.items()}

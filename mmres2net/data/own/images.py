"""Samples that are images by themselves: class folders, and images with masks."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
from PIL import Image

from mmres2net.data.formats import base
from mmres2net.data.formats.base import IGNORED, Sample, in_threads, regular_file, similar_class
from mmres2net.data.own.boxes import Source, class_names
from mmres2net.data.own.tree import AmbiguousError, Index, Tree, folder_of, is_mask_name, mask_word, split_of, stem_of
from mmres2net.data.shapes import voc_palette
from mmres2net.drawing import Color
from mmres2net.errors import UserError
from mmres2net.text import join_some

SAMPLE = 32  # masks that are read to tell what they are
FEW = 64  # colors: more of them is a photograph
JPEG_ERROR = 16  # by which compression makes the channels of a gray image differ
VOC_BORDER = 0xE0E0C0  # the color of VOC's ignored pixels
VALUES = {value: value for value in range(IGNORED + 1)}  # labels of masks whose values are the labels
MARK = re.compile('[^a-z0-9]|(?<=[0-9])(?=[a-z])|(?<=[a-z])(?=[0-9])')  # between the parts of a name
COLORED = -1  # no value


def spread(items: Sequence[str], count: int = SAMPLE) -> list[str]:
    """Return ``count`` of ``items``, evenly spread over them."""
    step = max(len(items) / count, 1)
    return [items[int(i * step)] for i in range(min(count, len(items)))]


# Class folders


def class_folders(tree: Tree) -> dict[str | None, dict[str, list[str]]]:
    """Return images by split and by class; empty where the folders are not those of classes."""
    names = tree.images.names
    if tree.spec.places:
        return {part: _classes(names, '' if place == '.' else place) for part, (place, *_) in tree.spec.places.items()}
    top = _common(names, '')
    classes = _classes(names, top)
    splits = {head: split for head in classes if (split := split_of(head))}
    found: dict[str | None, dict[str, list[str]]] = {}
    found |= {split: _classes(names, _common(names, f'{top}/{head}'.strip('/'))) for head, split in splits.items()}
    if not found.get('train'):
        return {None: classes} if len(classes) > max(len(splits), 1) else {}
    if len(found) < len(splits):
        raise AmbiguousError(f'several folders are of one split: {", ".join(splits)}')
    return found


def _common(names: Sequence[str], folder: str) -> str:
    """Return the deepest folder in or at ``folder`` below which all its images in folders are in folders."""
    inside = {folder_of(name) for name in names if name.startswith(f'{folder}/' if folder else '')} - {folder}
    deepest = os.path.commonpath(inside) if inside else folder
    return folder_of(deepest) if deepest in inside else deepest


def _classes(names: Sequence[str], folder: str) -> dict[str, list[str]]:
    """Return the images below ``folder`` by the folder in it that they are in."""
    classes: dict[str, list[str]] = defaultdict(list)
    for name in names:
        head, slash, _ = name.removeprefix(f'{folder}/').partition('/')
        if slash and name.startswith(f'{folder}/' if folder else ''):
            classes[head].append(name)
    return classes


def load_folders(tree: Tree) -> Source:
    """Return the images in class folders; a UserError for fewer than two, or for one that training has not."""
    found = {part: classes for part, classes in class_folders(tree).items() if classes}
    learned = found.get('train', found.get(None, {}))
    classes = tree.spec.classes or tuple(sorted(learned))
    absent = [name for name in classes if name not in learned]
    strange = sorted({name for folders in found.values() for name in folders} - set(classes))
    if absent or strange or len(classes) < 2:
        close = [f'{name} ({like}?)' if (like := similar_class(name, classes)) else name for name in strange]
        faults = f'not in training: {join_some(absent) or "none"}; only in others: {join_some(close) or "none"}'
        raise UserError(f'{tree.spec.root}: two or more class folders have to be the same in all splits; {faults}')
    samples: dict[str | None, list[Sample]] = {part: [] for part in found}
    for part, name in ((part, name) for part, folders in found.items() for name in sorted(folders)):
        for path in map(tree.path, found[part][name]):
            samples[part].append(Sample(path, raw=name, parsed=(None, [base.Annotation(path, name)], [])))
    left = len(tree.images.names) - sum(map(len, samples.values()))
    tree.note(left, 'images are in no class folder of a split and are left out.')
    if others := [name for name in tree.files if '/' in name and not name.lower().endswith(base.IMAGE_SUFFIXES)]:
        kinds = join_some(sorted({os.path.splitext(name)[1] or name for name in others}))
        tree.notes.append(f'{len(others):,} files ({kinds}) are not read as images, such as {others[0]}.')
    return Source('class folders', samples, 'images', 'classification', classes)


# Masks


def find_masks(tree: Tree, names: Sequence[str]) -> dict[str, str]:
    """Return the mask of each image of ``names`` that has one; AmbiguousError: two masks of an image.

    Masks are images of few colors, or in gray where their names say so. They are called like the images but for what
    all of them have in front or behind, such as ``_mask``.
    """
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name in names:
        groups[folder_of(name), os.path.splitext(name)[1].lower(), mask_word(name)].append(name)
    hinted = {key for key, names in groups.items() if is_mask_name(names[0])}
    hinted = set() if len(hinted) == len(groups) else hinted
    count = 4 if len(groups) < 50 else 1
    like = {k for k, names in groups.items() if all(_is_mask(tree.path(n), k in hinted) for n in spread(names, count))}
    chosen = like & hinted or like
    places = {folder for folder, *_ in chosen}
    masks = [name for key in chosen for name in groups[key]]
    images = [n for key in groups if not (key in like and key[0] in places) for n in groups[key]]
    others = [name for key in like - chosen if key[0] not in places for name in groups[key]]
    if others and _pair([name for name in images if name not in set(others)], others):
        raise AmbiguousError(f'{masks[0]} and {others[0]} both could be masks', format=['masks'])
    pairs = _pair(images, masks)
    some = spread(sorted(pairs)) if not like & hinted else []
    equal = sum(base.image_size(tree.path(name)) == base.image_size(tree.path(pairs[name])) for name in some)
    return pairs if equal >= 0.9 * len(some) else {}


def _is_mask(path: str, hinted: bool) -> bool:
    try:
        with Image.open(regular_file(path)) as image:
            deep = image.mode.startswith('I')
            if image.format != 'JPEG' and (image.convert('I') if deep else image).getcolors(FEW) is not None:
                return True
            return hinted and (deep or _is_gray(np.asarray(image.convert('RGB')), JPEG_ERROR))
    except Exception:  # damaged files raise many kinds of error; the check names them
        return False


def _is_gray(colors: np.ndarray, tolerance: int) -> bool:
    return int((colors.max(-1).astype(int) - colors.min(-1)).max()) <= tolerance


def _pair(images: Sequence[str], masks: Sequence[str]) -> dict[str, str]:
    """Return the mask of each image, by names with or without what all images, or all masks, have in common."""
    cuts = product((stem_of, _without_common(images)), (stem_of, _without_common(masks)))
    of_images, of_masks = max(cuts, key=lambda cut: len(set(map(cut[0], images)) & set(map(cut[1], masks))))
    return Index(images, of_images).pair(masks, of_masks)[0]


def _without_common(names: Sequence[str]) -> Callable[[str], str]:
    """Return what cuts the parts from names that most of them begin and end with, as in mask_1_train, mask_2_train."""
    stems = {stem_of(name) for name in names}
    marks = [(stem, mark) for stem in stems for mark in MARK.finditer(stem)]
    counts = Counter(stem[: mark.end()] for stem, mark in marks), Counter(stem[mark.start() :] for stem, mark in marks)
    often = max(len(stems) / 2, 1)
    begin, end = (max((text for text in found if found[text] > often), key=len, default='') for found in counts)
    return lambda name: stem_of(name).removeprefix(begin).removesuffix(end)


def mask_pixels(path: str, *, colored: bool = False) -> np.ndarray:
    """Return the values (H, W) of a mask of one channel, else a UserError; ``colored``: its colors as 0xRRGGBB."""
    with Image.open(regular_file(path)) as image:
        if image.mode in ('L', 'P', 'I', 'I;16') and not colored:
            return np.asarray(image)
        colors = np.asarray(image.convert('RGB')).astype(np.int32)
        tolerance = JPEG_ERROR if image.format == 'JPEG' else 0
    if colored:
        return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]
    if not _is_gray(colors, tolerance):
        raise UserError(f'{path}: the mask has colors; others have one channel')
    return colors[..., 1]


def _values(masks: Sequence[str], *, colored: bool = False) -> set[int]:
    """Return the values or colors in masks; COLORED stands for a mask in colors where values are wanted."""

    def read(path: str) -> set[int]:
        try:
            return set(np.unique(mask_pixels(path, colored=colored)).tolist())
        except UserError:
            return {COLORED}
        except Exception:  # as above
            return set()

    return set().union(*in_threads(read, masks))


def read_labels(path: str, *, codes: Mapping[int, int] = VALUES, colored: bool = False) -> np.ndarray:
    """Return the labels (H, W) uint8 of a mask: the ``codes`` of its values or colors; a UserError for another one."""
    pixels = mask_pixels(path, colored=colored)
    values, inverse = np.unique(pixels, return_inverse=True)
    if unknown := [value for value in values.tolist() if value not in codes]:
        names = _hex(unknown) if colored else unknown
        raise UserError(f'{path}: no class has {join_some(names)}; write classes and palette in a data file')
    return np.array([codes[value] for value in values.tolist()], np.uint8)[inverse].reshape(pixels.shape)


def holds_labels(path: str) -> bool:
    """Return whether training reads the values of a mask file as labels; also of one that cannot be read."""
    try:
        with Image.open(regular_file(path)) as image:
            return image.mode in ('L', 'P') and image.format in ('PNG', 'BMP', 'TIFF')
    except Exception:  # as above
        return True


def load_masks(tree: Tree) -> Source:
    """Return the images that have a mask, and how masks are read; AmbiguousError: nothing tells the classes."""
    both = any(len(places) > 1 for places in tree.spec.places.values())  # images and masks
    pairs = find_masks(tree, tree.within(tree.images.names) if both else tree.images.names)
    images, findings = tree.by_split('segmentation', pairs)
    samples = {
        part: [Sample(tree.path(name), mask=tree.path(pairs[name])) for name in names if name in pairs]
        for part, names in images.items()
    }
    masks = [sample.mask for found in samples.values() for sample in found]
    if not masks:
        raise UserError(f'{tree.spec.root}: no image of a split has a mask of its name')
    tree.note(len(tree.images.names) - 2 * len(pairs), 'images have no mask and are left out.')
    source = Source('masks', samples, 'pixels', 'segmentation', class_names(tree), tree.spec.palette, findings)
    some = spread(masks)
    known = source.palette and _values(some, colored=True) <= {*_codes(source.palette), VOC_BORDER}
    if known or COLORED in (found := _values(some)):
        _read_colors(source, masks)
        tree.notes.append(f'Masks are read by their {len(source.palette)} colors.')
    else:
        _read_values(tree, source, masks, found)
    return source


def _read_colors(source: Source, masks: Sequence[str]) -> None:
    if not source.palette:
        flat = voc_palette()
        source.palette = list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))[: len(source.classes)]
        colors = sorted(_values(masks, colored=True) - {VOC_BORDER})
        if unknown := [color for color in colors if color not in _codes(source.palette)]:
            palette = [[color >> 16, color >> 8 & 255, color & 255] for color in colors[:FEW]]
            raise AmbiguousError(
                f'the masks have colors, such as {join_some(_hex(unknown))}, and nothing tells their classes: write '
                'classes and palette, a color [R, G, B] for each class',
                classes=[str(_hex(colors[:FEW]))],
                palette=[str(palette)],
            )
    source.read_mask = partial(read_labels, codes={VOC_BORDER: IGNORED} | _codes(source.palette), colored=True)


def _codes(palette: Iterable[Color]) -> dict[int, int]:
    return {red << 16 | green << 8 | blue: label for label, (red, green, blue) in enumerate(palette)}


def _hex(colors: Iterable[int]) -> list[str]:
    return [f'#{color:06x}' for color in colors]


def _read_values(tree: Tree, source: Source, masks: Sequence[str], found: set[int]) -> None:
    """Let masks be read by their values, those of a sample in ``found``: 0 and 255, grays, or indices of classes."""
    names = ['background'] * (len(source.classes) == 1) + list(source.classes)
    top = max(found - {IGNORED}, default=0)
    grays = masks[0].lower().endswith(('.jpg', '.jpeg')) or (top >= (len(names) or 2 * len(found)) and len(found) > 9)
    if (found <= {0, 255} and 255 in found) or (max(found, default=0) >= 128 and grays):
        names = names or ['background', 'foreground']
        source.read_mask = partial(read_labels, codes={value: int(value >= 128) for value in VALUES})
        tree.notes.append(f'Masks hold 0 to 255: from 128 on a pixel is {names[-1]}.')
        found = {0, 1}
    elif not names:
        found = _values(masks)
        top = max(found - {IGNORED}, default=0)
        if top < 2 * len(found):  # else nothing says that the values are indices
            names = ['background', *map(str, range(1, top + 1))] if top > 1 else ['background', 'foreground']
        tree.notes.append(f'No file names the classes: the masks hold indices up to {top}.')
    strange = sorted(found - set(range(len(names))) - {IGNORED})
    if strange or len(names) > IGNORED or (source.read_mask and len(names) != 2):
        top = max(strange or found)
        where = next((mask for mask in masks if top in _values([mask])), '')
        classes = f'there are {len(names)} classes, numbered from 0: {join_some(names)}' if names else 'none has a name'
        held = f'the masks hold the values {join_some(strange or sorted(found))} ({top} in {where}), but {classes}'
        ways = 'write classes for all values, the background too, or a palette, with [V, V, V] for a gray value V'
        raise AmbiguousError(f'{held}; {ways}')
    if source.read_mask is None and not all(map(holds_labels, spread(masks))):
        source.read_mask = partial(read_labels, codes=VALUES)
    source.classes = names

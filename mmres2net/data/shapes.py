"""The embedded data set `shapes`: drawn in seconds, for the demo and for tests without a download.

The same spec gives the same annotations and masks byte for byte on any platform; the JPEG files, which all layouts
share, also depend on Pillow's encoder. Conventions, all tested to the pixel:

- COCO: `bbox` is that of the half-open box, `area` the visible pixels. Polygons run along pixel edges, and pycocotools
  decodes them to exactly the mask; holes are joined to the outline by a bridge of no width. Groups are `iscrowd=1` with
  an uncompressed RLE, as in COCO itself; single objects are not, because mmdet drops RLE where `poly2mask=False`.
- VOC 2007: xmin = x1 + 1 .. xmax = x2. Objects under 12 px on both sides and groups are `difficult`, partly hidden
  objects `truncated`.
- VOC 2012: palette PNG, 0 background, 1.. classes, 255 on a border one pixel wide around each object.
- Saliency: 255 on the object with most visible pixels (the one drawn first where two are equal; never a group).
  Images without such an object are in no saliency list.
"""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from mmres2net.data.shapes_scene import CLASSES, SPLITS, Instance, Scene, ShapesSpec, draw_scene
from mmres2net.errors import UserError
from mmres2net.fetch.download import progress_bar
from mmres2net.files import locked
from mmres2net.flags import parse

__all__ = ['CLASSES', 'DEFAULT_SPEC', 'ShapesSpec', 'draw_scene', 'main', 'make_shapes']

VERSION = 1  # increase it with every change of the images or files
MANIFEST = 'shapes.json'
DEFAULT_SPEC = ShapesSpec()
DIFFICULT_BELOW = 12  # pixels
VOID = 255
VAL_STEM = 100_000  # validation images are numbered from here, so that no file name occurs in two splits
JPEG_QUALITY = 92

_Point = tuple[int, int]
_Loop = list[_Point]

VOC07, VOC12 = 'VOCdevkit/VOC2007', 'VOCdevkit/VOC2012'


def stem(split: str, index: int) -> str:
    """File name without suffix of image `index` (from 0) of a split, the same in every layout."""
    return f'{index + 1 + VAL_STEM * SPLITS.index(split):06d}'


def _loops(mask: np.ndarray) -> list[_Loop]:
    """Closed outlines of a mask as corners (x, y): outer ones clockwise on the screen, holes the other way."""
    padded = np.pad(mask, 1)
    edges: dict[_Point, list[_Point]] = {}  # around pixels, start corner -> end corners, with the mask on the right
    # (offset of the outer neighbour, start corner, end corner), corners relative to the pixel's upper left one
    for (dy, dx), (sx, sy), (ex, ey) in (
        ((-1, 0), (0, 0), (1, 0)), ((0, 1), (1, 0), (1, 1)), ((1, 0), (1, 1), (0, 1)), ((0, -1), (0, 1), (0, 0)),
    ):  # fmt: skip
        outer = padded[1 + dy : 1 + dy + mask.shape[0], 1 + dx : 1 + dx + mask.shape[1]]
        for y, x in np.argwhere(mask & ~outer).tolist():
            edges.setdefault((x + sx, y + sy), []).append((x + ex, y + ey))
    loops = []
    while edges:
        loop = [next(iter(edges))]
        while len(loop) == 1 or loop[-1] != loop[0]:
            ends = edges[loop[-1]]
            if len(ends) == 1:
                del edges[loop[-1]]
            loop.append(ends.pop())
        steps = zip([loop[-2], *loop[:-2]], loop[:-1], loop[1:], strict=True)
        loops.append([q for p, q, r in steps if not (p[0] == q[0] == r[0] or p[1] == q[1] == r[1])])
    return loops


def _signed_area(loop: _Loop) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise([*loop, loop[0]])) / 2


def _around(loop: _Loop, hole: _Loop) -> bool:
    """Return whether the mask pixels along a hole are inside an outer loop."""
    (x0, y0), (x1, y1) = hole[:2]
    dx, dy = np.sign(x1 - x0), np.sign(y1 - y0)
    x, y = x0 + (dx - dy) / 2, y0 + (dy + dx) / 2  # centre of the pixel to the right of the hole's first edge
    above = sum(b == d < y and min(a, c) < x < max(a, c) for (a, b), (c, d) in pairwise([*loop, loop[0]]))
    return above % 2 == 1


def _bridge(outer: _Loop, hole: _Loop) -> _Loop:
    """One loop from an outer loop and its hole, joined to and fro between their nearest corners."""
    distance = ((np.array(outer)[:, None] - np.array(hole)[None]) ** 2).sum(-1)
    i, j = (int(k) for k in np.unravel_index(int(distance.argmin()), distance.shape))
    path = [*outer[: i + 1], *hole[j:], *hole[: j + 1], *outer[i:]]
    # A hole that touches its outline repeats a point, which decoders do not expect.
    return [point for point, following in pairwise([*path, path[0]]) if point != following]


def polygons(mask: np.ndarray) -> list[list[int]]:
    """COCO polygons [[x0, y0, x1, y1, ...], ...] that decode to exactly this bool mask (H, W)."""
    loops = _loops(mask)
    outers = sorted((loop for loop in loops if _signed_area(loop) > 0), key=_signed_area)
    for hole in (loop for loop in loops if _signed_area(loop) < 0):
        k = next(k for k, outer in enumerate(outers) if _around(outer, hole))  # the innermost one
        outers[k] = _bridge(outers[k], hole)
    return [[value for point in outer for value in point] for outer in outers]


def uncompressed_rle(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's run lengths of a bool mask (H, W), column by column, beginning with a run of zeros."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    bounds = [0, *changes, flat.size]
    counts = [end - begin for begin, end in pairwise(bounds)]
    return {'counts': counts, 'size': list(mask.shape)}


def voc_xml(
    filename: str, size: tuple[int, int], objects: Iterable[tuple[str, int, int, Sequence[int]]], database: str
) -> str:
    """Return a VOC annotation of (class, truncated, difficult, box); boxes begin at 1 and hold their last pixel."""
    root = ElementTree.Element('annotation')
    _children(root, folder='VOC2007', filename=filename, segmented=1)
    _children(ElementTree.SubElement(root, 'source'), database=database)
    _children(ElementTree.SubElement(root, 'size'), width=size[0], height=size[1], depth=3)
    for name, truncated, difficult, box in objects:
        node = ElementTree.SubElement(root, 'object')
        _children(node, name=name, pose='Unspecified', truncated=truncated, difficult=difficult)
        _children(ElementTree.SubElement(node, 'bndbox'), xmin=box[0], ymin=box[1], xmax=box[2], ymax=box[3])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode') + '\n'


def _children(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def _voc_object(one: Instance) -> tuple[str, int, int, Sequence[int]]:
    x1, y1, x2, y2 = one.box
    difficult = one.crowd or max(x2 - x1, y2 - y1) < DIFFICULT_BELOW
    return CLASSES[one.label], int(one.area < one.full_area), int(difficult), (x1 + 1, y1 + 1, x2, y2)


def semantic_mask(scene: Scene) -> np.ndarray:
    """VOC 2012 class map, uint8 (H, W): 0 background, 1.. classes, 255 the border around each object."""
    order = np.zeros(scene.image.shape[:2], dtype=np.int64)
    labels = np.zeros_like(order, dtype=np.uint8)
    for rank, instance in enumerate(scene.instances, start=1):
        order[instance.mask] = rank
        labels[instance.mask] = instance.label + 1
    around = np.pad(order, 1)
    above = np.max([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]], axis=0)
    labels[above > order] = VOID
    return labels


@cache
def voc_palette() -> tuple[int, ...]:
    """VOC's 256 colours, flat: the bits of a colour's number go in turn to red, green and blue, highest bit first."""
    return tuple(
        sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for i in range(256) for channel in range(3)
    )


def write_set(root: Path, spec: ShapesSpec) -> None:
    """Draw and write all files into the empty folder `root`."""
    names = {one: [stem(one, i) for i in range(n)] for one, n in zip(SPLITS, (spec.n_train, spec.n_val), strict=True)}
    salient: set[str] = set()
    for split in SPLITS:
        coco: dict[str, Any] = {'info': {'description': 'mmres2net shapes'}, 'licenses': []}
        coco['categories'] = [{'id': i, 'name': name, 'supercategory': 'shape'} for i, name in enumerate(CLASSES, 1)]
        coco |= {'images': [], 'annotations': []}
        for index, name in enumerate(progress_bar(f'shapes: {split}', items=names[split], unit=' images')):
            scene = draw_scene(spec, split, index)
            salient |= {name} if _write_image(root, split, name, scene) else set()
            height, width = scene.image.shape[:2]
            coco['images'].append({'id': int(name), 'file_name': f'{name}.jpg', 'height': height, 'width': width})
            for one in scene.instances:
                x1, y1, x2, y2 = one.box
                coco['annotations'].append({
                    'id': len(coco['annotations']) + 1, 'image_id': int(name), 'category_id': one.label + 1,
                    'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': one.area, 'iscrowd': int(one.crowd),
                    'segmentation': uncompressed_rle(one.mask) if one.crowd else polygons(one.mask),
                })  # fmt: skip
        _write(root / f'annotations/instances_{split}2017.json', json.dumps(coco, separators=(',', ':')))
    _write_lists(root, names['train'], names['val'], salient)


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, text: str) -> None:
    _place(path).write_text(text, encoding='utf-8')


def _write_image(root: Path, split: str, name: str, scene: Scene) -> bool:
    jpeg, voc07, voc12, saliency = root / f'{split}2017/{name}.jpg', root / VOC07, root / VOC12, root / 'saliency'
    Image.fromarray(scene.image).save(_place(jpeg), quality=JPEG_QUALITY)
    size, objects = (scene.image.shape[1], scene.image.shape[0]), map(_voc_object, scene.instances)
    _write(voc07 / f'Annotations/{name}.xml', voc_xml(jpeg.name, size, objects, 'mmres2net shapes'))
    classes = Image.fromarray(semantic_mask(scene))
    classes.putpalette(voc_palette())
    classes.save(_place(voc12 / f'SegmentationClass/{name}.png'))
    single = [one for one in scene.instances if not one.crowd]
    if single:
        salient = max(single, key=lambda one: one.area).mask.astype(np.uint8) * 255
        Image.fromarray(salient).save(_place(saliency / f'masks/{name}.png'))
    for folder in (voc07 / 'JPEGImages', voc12 / 'JPEGImages', *([saliency / 'images'] if single else [])):
        try:
            os.link(jpeg, _place(folder / jpeg.name))
        except OSError:  # a file system without hard links still gets a complete set
            shutil.copyfile(jpeg, folder / jpeg.name)
    return bool(single)


def _write_lists(root: Path, train: list[str], test: list[str], salient: set[str]) -> None:
    """Write the split lists of VOC and saliency; VOC 2007 keeps every fifth training image for its own `val`."""
    lists = {
        f'{VOC07}/ImageSets/Main/train': [name for i, name in enumerate(train) if i % 5 != 4],
        f'{VOC07}/ImageSets/Main/val': train[4::5],
        f'{VOC07}/ImageSets/Main/trainval': train,
        f'{VOC07}/ImageSets/Main/test': test,
        f'{VOC12}/ImageSets/Segmentation/train': train,
        f'{VOC12}/ImageSets/Segmentation/val': test,
        f'{VOC12}/ImageSets/Segmentation/trainval': train + test,
        'saliency/train': [name for name in train if name in salient],
        'saliency/test': [name for name in test if name in salient],
    }
    for path, names in lists.items():
        _write(root / f'{path}.txt', ''.join(f'{name}\n' for name in names))


def make_shapes(root: str | Path, *, spec: ShapesSpec = DEFAULT_SPEC) -> Path:
    """Make the set in folder `root`, unless it is there already; return the folder.

    An interrupted call leaves nothing at `root`; a second process waits for the first. A UserError says that `root` has
    other content or another set; nothing in it is ever deleted.
    """
    root = Path(root)
    manifest = {'name': 'shapes', 'version': VERSION, 'spec': asdict(spec)}
    if not _is_made(root, manifest):
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root.parent, f'waiting for another process that makes a data set in {root.parent}', wait=True):
            if not _is_made(root, manifest):
                _make(root, spec, manifest)
    return root


def _make(root: Path, spec: ShapesSpec, manifest: dict[str, Any]) -> None:
    draft = root.with_name(f'.{root.name}.partial')
    shutil.rmtree(draft, ignore_errors=True)  # a killed process left it
    draft.mkdir()
    try:
        write_set(draft, spec)
        _write(draft / MANIFEST, json.dumps(manifest, indent=1) + '\n')
        draft.rename(root)  # which is absent or an empty folder
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_made(root: Path, manifest: dict[str, Any]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = dict(json.loads((root / MANIFEST).read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError, RecursionError):
        found = {}
    changed = [f'{key} {found.get(key)}, not {value}' for key, value in manifest.items() if found.get(key) != value]
    if changed:
        way = 'choose another folder, or remove it yourself'
        raise UserError(f'{root} is not the shapes data set that is wanted: {", ".join(changed)}; {way}')
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Make the set and print where it is."""
    args = parse('demo-data', argv)
    try:
        root = make_shapes(args.root, spec=ShapesSpec(args.train, args.val, args.seed))
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    print(f'{args.train} training and {args.val} validation images are in {root}')
    return 0

"""How the data set `shapes` is written: one JPEG an image, shared by the COCO, VOC 2007, VOC 2012 and saliency layouts.

Conventions, all tested to the pixel:
- COCO: `bbox` = [x, y, width, height] of the half-open box, `area` = visible pixels. `segmentation` is a list of
  polygons that run along pixel edges, which pycocotools decodes to exactly the mask; holes are joined to the outline
  by a bridge of no width. Polygons rather than RLE, because mmdet drops RLE instances where `poly2mask=False`.
  Groups are `iscrowd=1` with an uncompressed RLE, as in COCO itself.
- VOC 2007: xmin = x1 + 1 .. xmax = x2, 1-based and inclusive. Objects under 12 px on both sides and groups are
  `difficult`; partly hidden objects are `truncated`.
- VOC 2012: palette PNG, 0 background, 1.. classes, 255 on every pixel that has a 4-neighbour of an object lying
  above it: a border one pixel wide around each object.
- Saliency: 255 on the object with most visible pixels (the one drawn first where two are equal; never a group).
  Images without such an object are in no saliency list.
"""

import json
import os
import shutil
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from mmres2net.data.shapes_scene import CLASSES, SPLITS, Instance, Scene, ShapesSpec, draw_scene
from mmres2net.fetch.progress import progress_bar

DIFFICULT_BELOW = 12  # pixels
VOID = 255
VAL_STEM = 100_000  # validation images are numbered from here, so that no file name occurs in two splits
JPEG_QUALITY = 92

_Point = tuple[int, int]
_Loop = list[_Point]

VOC07, VOC12 = 'VOCdevkit/VOC2007', 'VOCdevkit/VOC2012'
COCO_SIZES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, 10**9)}  # areas in pixels


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
    """Positive for a clockwise loop on the screen (y down)."""
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


def coco_annotation(instance: Instance, image_id: int, annotation_id: int) -> dict[str, Any]:
    """One entry of COCO's `annotations`; see the conventions above."""
    x1, y1, x2, y2 = instance.box
    return {
        'id': annotation_id, 'image_id': image_id, 'category_id': instance.label + 1,
        'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': instance.area, 'iscrowd': int(instance.crowd),
        'segmentation': uncompressed_rle(instance.mask) if instance.crowd else polygons(instance.mask),
    }  # fmt: skip


def voc_xml(scene: Scene, name: str) -> str:
    """VOC 2007 annotation of a scene stored as `name`.jpg."""
    height, width = scene.image.shape[:2]
    root = ElementTree.Element('annotation')
    _children(root, folder='VOC2007', filename=f'{name}.jpg', segmented=1)
    _children(ElementTree.SubElement(root, 'source'), database='mmres2net shapes')
    _children(ElementTree.SubElement(root, 'size'), width=width, height=height, depth=3)
    for instance in scene.instances:
        x1, y1, x2, y2 = instance.box
        tiny = max(x2 - x1, y2 - y1) < DIFFICULT_BELOW
        node = ElementTree.SubElement(root, 'object')
        _children(node, name=CLASSES[instance.label], pose='Unspecified')
        _children(node, truncated=int(instance.area < instance.full_area), difficult=int(tiny or instance.crowd))
        _children(ElementTree.SubElement(node, 'bndbox'), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode') + '\n'


def _children(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


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


def salient_mask(scene: Scene) -> np.ndarray | None:
    """Saliency map, uint8 (H, W) of 0 and 255, or None where the scene has no single object."""
    single = [instance for instance in scene.instances if not instance.crowd]
    return max(single, key=lambda instance: instance.area).mask.astype(np.uint8) * 255 if single else None


@cache
def voc_palette() -> tuple[int, ...]:
    """VOC's 256 colours, flat: the bits of a colour's number go in turn to red, green and blue, highest bit first."""
    return tuple(
        sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for i in range(256) for channel in range(3)
    )


def write_set(root: Path, spec: ShapesSpec) -> dict[str, Any]:
    """Draw and write all files into the empty folder `root`; return the counts of each split."""
    counts, names = {}, {}
    salient: list[str] = []
    for split, total in zip(SPLITS, (spec.n_train, spec.n_val), strict=True):
        coco: dict[str, Any] = {'info': {'description': 'mmres2net shapes'}, 'licenses': []}
        coco['categories'] = [{'id': i, 'name': name, 'supercategory': 'shape'} for i, name in enumerate(CLASSES, 1)]
        coco |= {'images': [], 'annotations': []}
        names[split] = [stem(split, index) for index in range(total)]
        with progress_bar(f'shapes: {split}', total, unit=' images') as bar:
            for index, name in enumerate(names[split]):
                scene = draw_scene(spec, split, index)
                salient += [name] if _write_image(root, split, name, scene) else []
                height, width = scene.image.shape[:2]
                coco['images'].append({'id': int(name), 'file_name': f'{name}.jpg', 'height': height, 'width': width})
                for instance in scene.instances:
                    entry = coco_annotation(instance, int(name), len(coco['annotations']) + 1)
                    coco['annotations'].append(entry)
                bar.update()
        _write(root / f'annotations/instances_{split}2017.json', json.dumps(coco, separators=(',', ':')))
        counts[split] = _count(coco)
    _write_lists(root, names['train'], names['val'], set(salient))
    return counts


def _count(coco: dict[str, Any]) -> dict[str, Any]:
    """Count images, crowds, and the other objects by class and COCO size."""
    single = [entry for entry in coco['annotations'] if not entry['iscrowd']]
    labels = Counter(entry['category_id'] for entry in single)
    sizes = {name: sum(low <= entry['area'] < high for entry in single) for name, (low, high) in COCO_SIZES.items()}
    return {
        'images': len(coco['images']),
        'objects': len(single),
        'crowds': len(coco['annotations']) - len(single),
        'classes': {name: labels[i] for i, name in enumerate(CLASSES, start=1)},
        'sizes': sizes,
    }


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, text: str) -> None:
    _place(path).write_text(text, encoding='utf-8')


def _write_image(root: Path, split: str, name: str, scene: Scene) -> bool:
    """Write an image and all its annotation files except COCO's; return whether it has a salient object."""
    jpeg, voc07, voc12, saliency = root / f'{split}2017/{name}.jpg', root / VOC07, root / VOC12, root / 'saliency'
    Image.fromarray(scene.image).save(_place(jpeg), quality=JPEG_QUALITY)
    _write(voc07 / f'Annotations/{name}.xml', voc_xml(scene, name))
    classes = Image.fromarray(semantic_mask(scene))
    classes.putpalette(voc_palette())
    classes.save(_place(voc12 / f'SegmentationClass/{name}.png'))
    salient = salient_mask(scene)
    if salient is not None:
        Image.fromarray(salient).save(_place(saliency / f'masks/{name}.png'))
    for folder in (voc07 / 'JPEGImages', voc12 / 'JPEGImages', *([] if salient is None else [saliency / 'images'])):
        try:
            os.link(jpeg, _place(folder / jpeg.name))
        except OSError:  # a file system without hard links still gets a complete set
            shutil.copyfile(jpeg, folder / jpeg.name)
    return salient is not None


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

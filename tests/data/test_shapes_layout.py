"""The annotations of the embedded data set are the scenes as drawn, to the pixel, and always the same."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

from mmres2net.data import shapes
from mmres2net.data.shapes import CLASSES
from mmres2net.data.shapes_scene import Instance, Scene


def _annotated(scenes: dict[str, Scene], coco: dict[str, COCO]) -> list[tuple[Instance, dict, COCO]]:
    pairs = []
    for name, scene in scenes.items():
        api = coco['val' if int(name) > shapes.VAL_STEM else 'train']
        entries = api.loadAnns(api.getAnnIds(imgIds=int(name)))
        assert len(entries) == len(scene.instances)
        pairs += [(instance, entry, api) for instance, entry in zip(scene.instances, entries, strict=True)]
    return pairs


def test_coco_annotations_are_the_drawn_instances(scenes: dict[str, Scene], coco: dict[str, COCO]) -> None:
    pairs = _annotated(scenes, coco)
    for instance, entry, api in pairs:
        assert isinstance(entry['segmentation'], dict if instance.crowd else list)
        assert np.array_equal(api.annToMask(entry), instance.mask)
        ys, xs = np.nonzero(instance.mask)
        assert entry['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert entry['area'] == instance.mask.sum()
        assert entry['category_id'] == instance.label + 1
        assert entry['iscrowd'] == instance.crowd
    assert sum(CLASSES[instance.label] == 'ring' for instance, *_ in pairs) >= 20  # masks with holes took part


def test_files_are_the_same_everywhere(root: Path) -> None:
    """All but the JPEG files, whose bytes depend on Pillow. Golden: a new value needs a new VERSION."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob('*.*') if path.suffix in ('.json', '.xml', '.txt', '.png')):
        if path.name != shapes.MANIFEST:
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(np.array(Image.open(path)).tobytes() if path.suffix == '.png' else path.read_bytes())
    assert digest.hexdigest() == '2088a1a11a30a21c7d47cfab779a9146bafca160307fa4ae1158ce51e42e0206'

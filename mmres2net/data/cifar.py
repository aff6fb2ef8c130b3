"""CIFAR-100 as a data set of MMEngine: the files of its binary version, which hold no code as those for Python do.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmres2net.errors import UserError
from mmres2net.registry import DATASETS

SIDE = 32
RECORD = 2 + 3 * SIDE * SIDE  # bytes of an image: its coarse and its fine label, then red, green and blue

# In the order of the label numbers.
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2
"""
FINE: tuple[str, ...] = tuple(_FINE.split())
COARSE: tuple[str, ...] = tuple(_COARSE.split())


@DATASETS.register_module()
class CIFAR100(BaseDataset):
    """CIFAR-100 with its 100 fine labels: 50,000 training and 10,000 test images, or any part of them.

    A sample has ``img`` (32, 32, 3), uint8 RGB, ``gt_label``, ``img_shape`` and ``ori_shape``, as the pipelines of
    mmpretrain take it. The arguments are those of MMEngine's ``BaseDataset``: ``data_root`` is the folder
    ``cifar-100-binary``, ``ann_file`` is ``train.bin`` or ``test.bin``.

    Raises:
        UserError: A file is missing, truncated or of another format.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'cifar100', 'classes': FINE}
    label = 1  # its place in a record
    channel_order = 'rgb'  # of the pixels that samples hold

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each image; see the class for its keys."""
        try:
            content = np.fromfile(self.ann_file, np.uint8)
        except OSError as error:
            raise _fault(self.ann_file, f'cannot be read: {error.strerror or error}') from error
        if not len(content) or len(content) % RECORD:
            raise _fault(self.ann_file, f'has {len(content):,} bytes, not {RECORD:,} for each image')
        records = content.reshape(-1, RECORD)
        labels, classes = records[:, self.label], len(self.METAINFO['classes'])
        if labels.max() >= classes:
            raise _fault(self.ann_file, f'has the label {labels.max()}, but labels are from 0 to {classes - 1}')
        images = np.ascontiguousarray(records[:, 2:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
        shape = (SIDE, SIDE)
        return [
            {'img': image, 'gt_label': int(label), 'img_shape': shape, 'ori_shape': shape}
            for image, label in zip(images, labels, strict=True)
        ]


# A class and not an argument: the check of a config's heads only knows the class.
@DATASETS.register_module()
class CIFAR100Coarse(CIFAR100):
    """CIFAR-100 with its 20 coarse labels, the superclasses; otherwise as :class:`CIFAR100`."""

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'cifar100', 'classes': COARSE}
    label = 0


def _fault(path: str, what: str) -> UserError:
    return UserError(f'{Path(path)} {what}; `mmres2net prepare-data cifar100` fetches the binary version')

"""CIFAR-100 as a data set of MMEngine: the original files, read as data.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
The files ``train``, ``test`` and ``meta`` are pickles, and a pickle can run any code. Here it can only name the parts
of a numpy array, which are replaced by stand-ins: no function that a file names is called.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmres2net.errors import UserError
from mmres2net.numpy_pickles import STAND_INS, StandIn
from mmres2net.registry import DATASETS

SIDE = 32

# In the order of the label numbers, as the file `meta` has them.
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
    mmpretrain take it. A file ``meta`` in the same folder must list the classes of this data set. The arguments are
    those of MMEngine's ``BaseDataset``: ``data_root`` is the folder ``cifar-100-python``, ``ann_file`` is ``train`` or
    ``test``.

    Raises:
        UserError: A file is missing, truncated or of another format, or names anything except numpy arrays.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'cifar100', 'classes': FINE}
    labels = 'fine'
    channel_order = 'rgb'  # of the pixels that samples hold

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each image; see the class for its keys."""
        path, classes = Path(self.ann_file), self.METAINFO['classes']
        meta, key = path.with_name('meta'), f'{self.labels}_label_names'
        if meta.exists() and (names := _entry(read_pickle(meta), key, meta)) != list(classes):
            names = names if isinstance(names, list) else []
            pairs = ((a, b) for a, b in zip(names, classes, strict=False) if a != b)
            first = next((f'; the first difference is {a!r} instead of {b!r}' for a, b in pairs), '')
            raise _fault(meta, f'{key!r} lists {len(names)} classes, not the {len(classes)} of CIFAR-100{first}')
        images, labels = read_samples(path, f'{self.labels}_labels', len(classes))
        shape = (SIDE, SIDE)
        return [
            {'img': image, 'gt_label': label, 'img_shape': shape, 'ori_shape': shape}
            for image, label in zip(images, labels, strict=True)
        ]


# A class and not an argument: the check of a config's heads only knows the class.
@DATASETS.register_module()
class CIFAR100Coarse(CIFAR100):
    """CIFAR-100 with its 20 coarse labels, the superclasses; otherwise as :class:`CIFAR100`."""

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'cifar100', 'classes': COARSE}
    labels = 'coarse'


class _Reader(pickle.Unpickler):
    """Reads pickles without running what they ask for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('_codecs', 'encode'):  # bytes as Python 3 writes them in the older protocols
            return lambda text, encoding: text.encode('latin1')
        if f'{module}.{name}' not in STAND_INS:
            raise UserError(f'it asks for {module}.{name}, which no file of CIFAR-100 needs and which could run code')
        return STAND_INS[f'{module}.{name}']


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dict in a file of CIFAR-100, with stand-ins for arrays, see :func:`read_samples`.

    Raises:
        UserError: The file is missing, not a complete pickle or not a dict, or names a function or class.
    """
    try:
        with path.open('rb') as stream:
            content = _Reader(stream, encoding='latin1').load()
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}') from error
    except UserError as error:
        raise _fault(path, str(error)) from error
    except Exception as error:  # a damaged file can raise any exception
        raise _fault(path, f'it is not a complete pickle ({type(error).__name__}: {error})') from error
    if not isinstance(content, dict):
        raise _fault(path, f'it has a {type(content).__name__}, but the files of CIFAR-100 have a dict')
    return content


def read_samples(path: Path, key: str, classes: int) -> tuple[np.ndarray, list[int]]:
    """Return the images (N, 32, 32, 3), uint8 RGB, of a file, and its N labels ``key``, from 0 to ``classes`` - 1.

    Raises:
        UserError: The file cannot be read, or it has no array of N rows of 3,072 bytes, or not so many such labels.
    """
    content = read_pickle(path)
    data, labels = _entry(content, 'data', path), _entry(content, key, path)
    data = getattr(data, 'value', None) if isinstance(data, StandIn) else data
    width = 3 * SIDE * SIDE
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (width,) or not len(data):
        kind = f'{data.dtype} of shape {data.shape}' if isinstance(data, np.ndarray) else type(data).__name__
        raise _fault(path, f"'data' is {kind}, not an array of uint8 and shape (images, {width:,})")
    if not isinstance(labels, list) or len(labels) != len(data):
        count = f'{len(labels):,} entries' if isinstance(labels, list) else f'a {type(labels).__name__}'
        raise _fault(path, f'{key!r} has {count} for {len(data):,} images')
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < classes]
    if wrong:
        what = f'are not integers from 0 to {classes - 1}, the first is {wrong[0]!r}'
        raise _fault(path, f'{len(wrong):,} of {len(data):,} {key} {what}')
    return np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)), labels


def _entry(content: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in content:
        there = ', '.join(sorted(map(str, content))) or 'nothing'
        raise _fault(path, f'it has no {key!r} (it has {there}), so it is not a file of CIFAR-100')
    return content[key]


def _fault(path: Path, what: str) -> UserError:
    return UserError(f'{path}: {what}; fetch and unpack cifar-100-python.tar.gz again')

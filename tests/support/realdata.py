"""Where the tests find small real data sets; they are not part of the project, and tests skip without them."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

VARIABLE = 'MMRES2NET_TEST_DATA'
DEFAULT = Path(__file__).resolve().parents[3] / 'shared' / 'data'


def data_root(name: str) -> Path:
    """The folder `name` in $MMRES2NET_TEST_DATA, or else in ../shared/data beside it; else a skip."""
    places = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    places.append(DEFAULT)
    for place in places:
        if (place / name).is_dir():
            return place / name
    named = os.environ.get(VARIABLE) or 'not set'
    return pytest.skip(f'real data {name!r} is neither in ${VARIABLE} ({named}) nor in {DEFAULT}')


def cifar100_mini(folder: Path) -> Path:
    """Write the images of 'cifar100_mini', which are pickles, as the binary version has them; return ``folder``."""
    (folder / 'cifar-100-binary').mkdir(parents=True)
    for name in ('train', 'test'):
        content = pickle.loads((data_root('cifar100_mini') / 'cifar-100-python' / name).read_bytes(), encoding='latin1')
        records = np.column_stack([content['coarse_labels'], content['fine_labels'], content['data']])
        records.astype(np.uint8).tofile(folder / 'cifar-100-binary' / f'{name}.bin')
    return folder

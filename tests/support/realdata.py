"""Where the tests find small real data sets; they are not part of the project, and tests skip without them."""

import os
from pathlib import Path

import pytest

VARIABLE = 'MMRES2NET_TEST_DATA'
DEFAULT = Path(__file__).resolve().parents[3] / 'shared' / 'data'


def data_root(name: str) -> Path:
    """The folder `name` (such as 'coco_mini') in $MMRES2NET_TEST_DATA, or else in ../shared/data beside the checkout.

    The test is skipped where neither has it, and the reason names both places.
    """
    places = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    places.append(DEFAULT)
    for place in places:
        if (place / name).is_dir():
            return place / name
    named = os.environ.get(VARIABLE) or 'not set'
    return pytest.skip(f'real data {name!r} is neither in ${VARIABLE} ({named}) nor in {DEFAULT}')

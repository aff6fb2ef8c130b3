#!/usr/bin/env python3
"""Turn weights of one library into those of another: the same as ``mmres2net convert-weights``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['convert-weights', *sys.argv[1:]]))

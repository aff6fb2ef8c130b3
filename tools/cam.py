#!/usr/bin/env python3
"""Draw where in an image a network finds a class: the same as ``mmres2net cam``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['cam', *sys.argv[1:]]))

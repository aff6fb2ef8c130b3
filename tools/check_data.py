#!/usr/bin/env python3
"""Check the data of a config: the same as ``mmres2net check-data``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['check-data', *sys.argv[1:]]))

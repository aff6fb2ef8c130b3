#!/usr/bin/env python3
"""Make the embedded data set: the same as ``mmres2net demo-data``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['demo-data', *sys.argv[1:]]))

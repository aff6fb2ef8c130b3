#!/usr/bin/env python3
"""Fetch and lay out a public data set: the same as ``mmres2net prepare-data``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['prepare-data', *sys.argv[1:]]))

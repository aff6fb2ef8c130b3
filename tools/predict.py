#!/usr/bin/env python3
"""Predict with a checkpoint or an exported file: the same as ``mmres2net predict``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['predict', *sys.argv[1:]]))

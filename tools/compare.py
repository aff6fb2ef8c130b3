#!/usr/bin/env python3
"""Compare runs: the same as ``mmres2net compare``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['compare', *sys.argv[1:]]))

#!/usr/bin/env python3
"""Count what networks and configs cost: the same as ``mmres2net complexity``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['complexity', *sys.argv[1:]]))

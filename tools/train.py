#!/usr/bin/env python3
"""Train a config: the same as ``mmres2net train``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['train', *sys.argv[1:]]))

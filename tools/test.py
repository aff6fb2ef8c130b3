#!/usr/bin/env python3
"""Evaluate a checkpoint: the same as ``mmres2net test``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['test', *sys.argv[1:]]))

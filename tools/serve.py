#!/usr/bin/env python3
"""Serve a page that shows predictions: the same as ``mmres2net serve``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['serve', *sys.argv[1:]]))

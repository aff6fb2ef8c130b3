#!/usr/bin/env python3
"""Write a model as a file for another runtime: the same as ``mmres2net export``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['export', *sys.argv[1:]]))

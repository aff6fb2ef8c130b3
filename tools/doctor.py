#!/usr/bin/env python3
"""Check the environment: the same as ``mmres2net doctor``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['doctor', *sys.argv[1:]]))

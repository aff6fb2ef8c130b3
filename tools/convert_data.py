#!/usr/bin/env python3
"""Write own data in another format: the same as ``mmres2net convert-data``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['convert-data', *sys.argv[1:]]))

#!/usr/bin/env python3
"""Train and draw the networks of the paper's figure 4: the same as ``mmres2net sweep``."""

import sys

from mmres2net.__main__ import main

sys.exit(main(['sweep', *sys.argv[1:]]))

#!/usr/bin/env python3
"""Make the embedded data set: `python tools/make_demo_data.py [ROOT] [--preview FILE.png]`."""

import sys

from mmres2net.data.shapes import main

if __name__ == '__main__':
    sys.exit(main())

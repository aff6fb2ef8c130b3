#!/usr/bin/env python3
"""Write the table of the configs: `python tools/config_table.py docs/configs.md [--check]`."""

import sys

from mmres2net.zoo import main

if __name__ == '__main__':
    sys.exit(main())

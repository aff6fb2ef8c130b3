#!/usr/bin/env python3
"""Run a benchmark: `python tools/benchmark.py evaluation [--page docs/benchmarks.md]`."""

import sys

from mmres2net.bench.cli import main

if __name__ == '__main__':
    sys.exit(main())

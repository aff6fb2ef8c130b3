#!/usr/bin/env python3
"""Run a benchmark: `python tools/benchmark.py inference [--page docs/benchmarks.md]`; `--help` names the others."""

import sys

from mmres2net.bench.cli import main

if __name__ == '__main__':
    sys.exit(main())

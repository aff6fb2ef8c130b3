"""Contenders that compute nothing, for the tests of the benchmarks; without torch, so that they start fast."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from mmres2net.bench.worker import MissingError


class Toy:
    """Writes what it is asked for into a log, and gives an array of `value`."""

    def __init__(self, name, log, value=1.0, shape=(2, 3), die=None):
        self.name, self.log, self.value, self.shape, self.die = name, Path(log), value, shape, die
        self._write('built')

    def _write(self, what):
        with self.log.open('a') as file:
            file.write(f'{self.name} {what}\n')

    def run(self):
        if self.die == 'run':
            print('my last words', file=sys.stderr, flush=True)
            os._exit(3)
        print('noise that is no answer')
        self._write('run')

    def outputs(self):
        self._write('checked')
        return {'feature 0': np.full(self.shape, self.value)}

    def facts(self):
        return {'operations': 10, 'pid': os.getpid(), 'threads': os.environ['OMP_NUM_THREADS']}


class Hoarder:
    """Each call takes `mib` MiB and gives them back; loading took more."""

    def __init__(self, mib):
        self.mib = mib
        np.ones(4 * mib * 2**17)

    def before(self):
        time.sleep(0.2)

    def run(self):
        np.ones(self.mib * 2**17)

    def outputs(self):
        return {}

    def facts(self):
        return {}


def absent():
    raise MissingError('there is none here')


def not_installed():
    import a_package_that_nobody_has  # noqa: F401


def broken():
    raise ValueError('built wrong\nsecond line')


def dies():
    print('gone', file=sys.stderr, flush=True)
    os.kill(os.getpid(), 9)


def answer(**options):
    return options

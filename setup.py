"""Adds the configs and tools to the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools')


class BuildWithConfigs(build_py):
    """Copy the runnable files into the build as ``mmres2net/.mim``, where MIM and MMEngine look for them.

    They go to the build folder alone, never into the source tree, where copies would grow stale. An editable install
    gets none: the checkout is its own source.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'mmres2net', '.mim')
        # build/ outlives a build: a config that was renamed since must not come along.
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))


setup(cmdclass={'build_py': BuildWithConfigs})

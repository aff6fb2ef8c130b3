"""Adds the configs to the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Copy the configs into the build as ``mmres2net/.mim/configs``, where MMEngine looks for them.

    An editable install gets no copy: it reads those of the checkout.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'mmres2net', '.mim', 'configs')
        shutil.rmtree(target, ignore_errors=True)  # build/ may hold configs that have been renamed since
        shutil.copytree(ROOT / 'configs', target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))


setup(cmdclass={'build_py': BuildWithConfigs})

"""The metafile of the shipped configs, and the pairs it names: a config and the baseline that it is compared with."""

import importlib.util
from pathlib import Path

_TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'config_table.py'
_SPEC = importlib.util.spec_from_file_location('config_table', _TOOL)
config_table = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(config_table)

META = config_table.read_meta()
CONFIGS = META['configs']
PAIRS = [(name, entry['baseline']) for name, entry in CONFIGS.items() if 'baseline' in entry]

"""What holds for every shipped config, whatever its task: it loads, is short, and says what it is."""

import ast
import re

import pytest

from mmres2net.data.layout import walk
from mmres2net.engine.config import load_config
from mmres2net.paths import config_dir, list_configs
from mmres2net.zoo import GROUPS

CONFIGS = list_configs()
FIELDS = ('Family:', 'Target:', 'Schedule:', 'Status:', 'Run:')


@pytest.mark.parametrize('name', CONFIGS)
def test_is_short_and_says_what_it_is(name: str) -> None:
    text = (config_dir() / name).read_text()
    assert len(text.splitlines()) <= 40
    docstring = ast.get_docstring(ast.parse(text)) or ''
    assert [field for field in FIELDS if f'\n{field}' not in docstring] == []
    assert f'tools/train.py configs/{name}' in docstring
    assert ('rank no backbone' in docstring) == name.startswith('demo/')


@pytest.mark.parametrize('name', CONFIGS)
def test_says_the_licence_of_the_weights_it_starts_from(name: str) -> None:
    """The official release's weights are not for commercial use, and everybody who starts from them has to know."""
    starts = {node.get('type') for _, node in walk(load_config(name).model, 'model') if 'checkpoint' in node}
    docstring = ast.get_docstring(ast.parse((config_dir() / name).read_text())) or ''
    assert ('not for commercial use' in docstring) == ('mmres2net.Pretrained' in starts)


@pytest.mark.parametrize('name', CONFIGS)
def test_is_in_one_group_of_the_table(name: str) -> None:
    assert len([title for title, pattern in GROUPS.items() if re.match(pattern, name)]) == 1

"""The direction of imports: one list; ``python -m tests.test_architecture`` writes CONTRIBUTING.md's table from it."""

import ast
import re
from pathlib import Path

import pytest

from mmres2net.text import format_table

PACKAGE = Path(__file__).resolve().parents[1] / 'mmres2net'
CONTRIBUTING = PACKAGE.parent / 'CONTRIBUTING.md'
MARKS = '<!-- imports -->', '<!-- /imports -->'
HOSTS = {'mmdet', 'mmseg', 'mmpretrain'}
# What each part of the package may import of it; a part may always import from itself. The last three of __init__.py
# are imported when they are used, and verbs, by cli.py, when they are called.
TABLE = """
registry.py:
errors.py:
flags.py:
environment.py:
paths.py:
drawing.py:
text.py: errors
files.py: environment errors
init_cfg.py:
notices.py:
plots.py: files
signals.py: errors
complexity: data engine errors files flags models paths text
version.py:
__init__.py: mmcv_ops predict swap version weights
mmcv_ops: errors
models: init_cfg registry
fetch: errors files
data: drawing environment errors fetch files flags registry text version
weights: errors fetch files flags init_cfg models registry text
swap: data errors init_cfg models registry weights
deploy: environment models
ops:
engine: data deploy drawing environment errors evaluation files flags init_cfg models notices ops paths plots
    registry signals swap text weights
evaluation: data errors files registry text
saliency: errors evaluation files registry text
predict: drawing engine errors files flags text weights
export: compare data engine errors evaluation files flags models predict text weights
compare: complexity data drawing engine environment errors evaluation files flags init_cfg models paths plots predict
    saliency text version weights
cam: drawing engine errors export flags predict text weights
sweep: complexity engine errors files flags models plots text
submit.py: errors flags
doctor: environment files flags registry
cli.py: errors flags notices signals version
__main__.py: cli errors
"""
PARTS = (line.partition(':') for line in TABLE.strip().replace('\n ', '').splitlines())
ALLOWED = {part: set(others.split()) for part, _, others in PARTS}


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: imports are absolute'
            names.add(node.module or '')
    return names


def test_every_part_is_known() -> None:
    parts = {p.name for p in PACKAGE.iterdir() if p.suffix == '.py' or (p.is_dir() and list(p.glob('*.py')))}
    assert parts == set(ALLOWED)


@pytest.mark.parametrize('part', ALLOWED)
def test_imports_point_one_way(part: str) -> None:
    place = PACKAGE / part
    for path in [place] if place.is_file() else sorted(place.rglob('*.py')):
        names = imported(path)
        ours = {name.split('.')[1] for name in names if name.startswith('mmres2net.')}
        assert ours <= ALLOWED[part] | {part}, path
        assert not {name.split('.')[0] for name in names} & (HOSTS | {'tools', 'configs', 'tests'}), path


def test_registry_needs_mmengine_alone() -> None:
    assert imported(PACKAGE / 'registry.py') == {'mmengine.registry'}


def import_table() -> str:
    """The list as a Markdown table, with the first line of each part's docstring."""
    rows = []
    for part, allowed in sorted(ALLOWED.items()):
        file = PACKAGE / part
        docstring = ast.get_docstring(ast.parse((file / '__init__.py' if file.is_dir() else file).read_text())) or ''
        what = re.sub(r':\w+:|`(?=`)', '', ' '.join(docstring.split('\n\n')[0].split()))
        rows.append([f'`{part}`', what, ', '.join(sorted(allowed))])
    return format_table(rows, ['part', 'what', 'may import'], markdown=True)


def with_table(text: str) -> str:
    start, rest = text.split(MARKS[0])
    return f'{start}{MARKS[0]}\n{import_table()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}'


def test_the_table_in_contributing_is_that_list() -> None:
    """Parts and what they may import; what they are for is copied from their docstrings when the table is written."""
    table = CONTRIBUTING.read_text().split(MARKS[0])[1].split(MARKS[1])[0]
    rows = [[cell.strip() for cell in line.split(' | ')] for line in table.strip().splitlines()[2:]]
    found = {row[0].strip('|` '): set(row[-1].strip('| ').split(', ')) - {''} for row in rows}
    assert found == ALLOWED, 'run: python -m tests.test_architecture'


if __name__ == '__main__':
    CONTRIBUTING.write_text(with_table(CONTRIBUTING.read_text()))

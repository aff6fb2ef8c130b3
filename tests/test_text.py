"""Tables, sizes, and what an exception says."""

import pytest

from mmres2net.errors import UserError, reason_of
from mmres2net.text import format_table, parse_size


def test_table() -> None:
    table = format_table([('backbone', 1.5, 'ok'), ('neck', -10, None)], ('part', 'ms', 'state'))
    assert table.splitlines() == ['part       ms  state', '--------  ---  -----', 'backbone  1.5  ok', 'neck      -10']
    assert format_table([('a', '41.36 (23.5)'), ('b', '1.00 (0.5)')]).splitlines()[1] == 'b      1.00 (0.5)'
    assert format_table([]) == ''
    table = format_table([('a|b', 1), ('c', 20)], ('name', 'n'), markdown=True)
    assert table.splitlines() == ['| name |   n |', '| ---- | --: |', '| a\\|b |   1 |', '| c    |  20 |']


def test_sizes() -> None:
    assert parse_size('800x1216') == (800, 1216)
    assert parse_size(' 3X5 ') == (3, 5)
    for text in ('', '800', '31x64', '-1x50', '1e3x50', '800x', '80x90x3', '9999999x50'):
        with pytest.raises(UserError, match='--shape'):
            parse_size(text, flag='--shape', least=32)


def test_reason_of() -> None:
    assert reason_of(KeyError('Nope is not in the registry\nPlease check')) == 'Nope is not in the registry'
    assert reason_of(KeyError('area')) == 'KeyError: area'
    assert reason_of(AssertionError()) == 'AssertionError'
    assert reason_of(ValueError('\n\n a  message ')) == 'a  message'

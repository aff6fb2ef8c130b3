"""Ratios, tables and pictures from figures that are known."""

import pytest
from PIL import Image

from mmres2net.bench.common import Case, Measured, pair_table
from mmres2net.bench.figures import Column, bars, ms, ratio_table, summarise
from mmres2net.bench.plot import draw
from mmres2net.bench.turns import Contender

BASE = Contender('base', '')
FAST = Contender('ours, fast', '', against='base', note='a note')
GONE = Contender('gone', '', against='base')
LOST = Contender('lost', '', against='gone')
ALL = [BASE, FAST, GONE, LOST]


def turns(*seconds, calls=2):
    return [{'seconds': one * calls, 'calls': calls, 'peak_mib': 100.0 + i} for i, one in enumerate(seconds)]


RUNS = {'base': turns(4.0, 2.0, 3.0), 'ours, fast': turns(1.0, 2.0, 0.9, calls=4), 'lost': turns(1.0, 1.0, 1.0)}


def test_summaries():
    found = summarise(ALL, RUNS)
    assert list(found) == ['base', 'ours, fast', 'lost']
    fast = found['ours, fast']
    assert (fast.seconds, fast.fastest, fast.slowest) == pytest.approx((1.0, 0.9, 2.0))
    assert fast.peak_mib == 101.0
    assert fast.ratio == pytest.approx(1 / 3)
    assert fast.ratio_of_fastest == pytest.approx(0.45)
    assert (fast.ratio_low, fast.ratio_high) == pytest.approx((0.25, 1.0))
    assert found['base'].ratio is None
    assert found['lost'].ratio is None


def test_table():
    text = ratio_table(ALL, summarise(ALL, RUNS), {'gone': 'no | here'}, [Column('more', {'base': 'x'})])
    head, _, base, fast, gone, lost = text.splitlines()
    assert head == '| contender | ratio | of the fastest turns | turn by turn | ms | all turns, ms | more |'
    assert base == '| base |  |  |  | 3,000 | 2,000 to 4,000 | x |'
    assert fast == '| ours, fast (a note) | 0.333 | 0.450 | 0.25 to 1.00 | 1,000 | 900 to 2,000 |  |'
    assert gone == '| gone; not measured: no / here |  |  |  |  |  |  |'
    assert lost.startswith('| lost |  |  |  | 1,000 |')


def test_pairs_need_both():
    assert pair_table([('ours, fast', 'gone')], RUNS) == ''
    text = pair_table([('ours, fast', 'gone'), ('ours, fast', 'base'), ('base', 'lost')], RUNS)
    assert text.splitlines()[2:] == [
        '| ours, fast / base | 0.333 | 0.450 | 0.25 to 1.00 |',
        '| base / lost | 3.000 | 2.000 | 2.00 to 4.00 |',
    ]


@pytest.mark.parametrize(('seconds', 'text'), [(0.0123456, '12.3'), (0.0012, '1.2'), (1.23456, '1,235'), (0.1, '100')])
def test_milliseconds(seconds, text):
    assert ms(seconds) == text


def measured(ceiling):
    differences = {'base': {'feature 0': 1e-7, 'feature 1': 3e-6}, 'ours, fast': {}}
    return Measured(Case('a', ALL), RUNS, summarise(ALL, RUNS), {}, differences, {}, ceiling)


def test_columns_of_a_measurement():
    found = measured({'matrix': 4e9, 'convolution': 2e9})
    speed, share = found.ceiling_columns({'base': 3 * 10**9, 'ours, fast': 3 * 10**9})
    assert speed == Column('GFLOP/s', {'base': '1', 'ours, fast': '3'})
    assert share == Column('of the ceiling', {'base': '25%', 'ours, fast': '75%'})
    assert found.difference_column().cells == {'base': '3e-06', 'ours, fast': '0e+00'}
    assert 'matrix 4 GFLOP/s, convolution 2 GFLOP/s' in found.ceiling_text()
    assert [column.head for column in measured({}).ceiling_columns({'base': 1})] == ['GFLOP/s']
    assert measured({}).ceiling_text() == ''


def test_bars():
    found = bars('title', ALL, summarise(ALL, RUNS))
    assert found['title'] == 'title'
    (bar,) = found['bars']
    assert bar == {'name': 'ours, fast', 'ratio': pytest.approx(1 / 3), 'low': 0.25, 'high': 1.0, 'ours': True}


def test_picture(tmp_path):
    bar = {'name': 'ours', 'ratio': 0.5, 'low': 0.4, 'high': 0.7, 'ours': True}
    few = [{'title': 'one', 'bars': [bar]}]
    many = [*few, {'title': 'two', 'bars': [{**bar, 'name': str(i), 'ours': False} for i in range(10)]}]
    sizes = []
    for number, panels in enumerate((few, many, [{'title': 'none', 'bars': []}])):
        file = tmp_path / 'new' / f'{number}.png'
        draw(file, panels, 'time / base')
        with Image.open(file) as picture:
            picture.load()
            assert picture.format == 'PNG'
            sizes.append(picture.size)
            colours = {colour[:3] for _, colour in picture.convert('RGB').getcolors(2**20)}
        assert ((0x2F, 0x6D, 0xB3) in colours) is (number < 2)
    # 120 dots per inch: 9 inches wide, 0.32 inches a bar and 1.1 inches a panel
    assert sizes == [(1080, round(120 * 1.42)), (1080, round(120 * (1.42 + 4.3))), (1080, round(120 * 1.42))]

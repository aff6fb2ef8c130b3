"""The page of a comparison: its values are those of report.json, hostile names stay text, nothing is loaded."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mmres2net.compare import result as r
from mmres2net.compare.gallery import chosen
from mmres2net.compare.job import render, write

HOSTILE = '<script>alert(1)</script> & "x" $\\frac$ {{ 7 * 7 }}'


def made(task: str = 'detection', level: str = r.CHECKPOINTS, value: float = 1.25, **changes: Any) -> r.Comparison:
    """A comparison of two sides with made values, and with names that break a page where they are not escaped."""
    run = r.Run(
        '/none', "model = dict(type='A')", HOSTILE, '/none/a.pth', '0' * 64, 0, {'torch': '2'}, '1' * 64, 'a', ''
    )
    sides = tuple(r.Side(f'{name} {HOSTILE}', (run,) * (1 if level == r.CHECKPOINTS else 3)) for name in 'AB')
    estimates = (r.Estimate(40.0, 38.5, 41.5), r.Estimate(40.0 + value, 39.0, 43.0))
    difference = r.Difference(value, value - 1, value + 1, 0.987, 0.01, 0.02, 2.6)
    row = r.Row('AP', 'bbox', True, estimates, (difference,), (31.1, 33.7))
    none = r.Estimate(None, None, None)
    empty = r.Row('APs', 'bbox', True, (none, none), (r.Difference(None, None, None, None, None, None),))
    x = (0.0, 0.5, 1.0)
    curve = r.Curve('precision', 'bbox', 'recall', 'precision', x, (r.Line(x, x, x), r.Line((None, 0.1, 0.2))))
    bins = tuple(r.Calibration('bbox', side.name, (0.2, None), (0.1, None), (3, 0), 0.1) for side in sides)
    scores = ((0.5,) * 9, (0.9, 0.5, 0.1, None, 0.6, 0.4, 0.5, 0.5, 0.5))
    detection = task == 'detection'
    base = r.Comparison(
        task=task, level=level, command='mmres2net compare A B', seed=3, samples=2000, banners=(), sides=sides,
        classes=(HOSTILE, 'b'), metrics=(row, empty), by_class=(replace(row, name=HOSTILE),), metric={'bbox': 'AP'},
        curves=(curve,), calibration=bins, errors=(replace(row, higher_is_better=False),) if detection else (),
        confusions=(r.Confusion('bbox', (HOSTILE, 'b'), (((3.0, 1.0), (0.0, 0.0)),) * 2),) if detection else (),
        images=r.Images(tuple(f'{number} {HOSTILE}.jpg' for number in range(9)), scores, 'F1'),
    )  # fmt: skip
    return replace(base, **changes)


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ''
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(text: str) -> Parsed:
    page = Parsed(text)
    for tag, attributes in page.tags:
        assert tag not in ('script', 'link', 'iframe', 'object')
        assert not [name for name in attributes if name.startswith('on')]
        assert attributes.get('src', 'data:image/').startswith('data:image/')
        assert 'href' not in attributes
        assert tag != 'img' or attributes['alt']
    assert not re.search(r'https?:|@import|url\(', text)
    return page


@pytest.mark.parametrize('task', ['detection', 'segmentation', 'classification', 'saliency'])
def test_page_holds_the_values_of_the_report_and_escapes_names(task: str, tmp_path: Path) -> None:
    written = write(made(task), tmp_path, cost=False)
    page = check_page((tmp_path / 'report.html').read_text())
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['metrics'][0]['differences'][0]['value'] == written.metrics[0].differences[0].value == 1.25
    form = '.3f' if task == 'saliency' else '.2f'
    for value in (format(1.25, f'+{form}'), format(41.25, form), format(31.1, form), '0.987', HOSTILE):
        assert value in page.text, value
    assert 'images are left out' in page.text  # of networks that are not there
    assert 'not measured: --no-cost' in page.text


@pytest.mark.parametrize(('level', 'value', 'said', 'unsaid'), [
    (r.CHECKPOINTS, 1.25, 'has the higher AP', 'recipe'), (r.CHECKPOINTS, -1.25, 'has the lower AP', 'recipe'),
    (r.CHECKPOINTS, 0.5, 'no difference in AP is shown', 'has the higher'),
    (r.RECIPES, 1.25, 'with 3 and 3 seeds of this recipe', 'two checkpoints'),
])  # fmt: skip
def test_verdict_says_what_the_interval_allows(level: str, value: float, said: str, unsaid: str) -> None:
    text = Parsed(render(made(level=level, value=value), [])).text
    verdict = ' '.join(text[: text.index('Task:')].split())
    assert said in verdict
    assert unsaid not in verdict
    assert 'published difference of this pair is +2.6' in verdict
    assert ('not of the architectures' in verdict) == (level == r.CHECKPOINTS)


def test_banners_and_settings_that_confound_are_at_the_top() -> None:
    setting = r.Setting('optim_wrapper.lr', ('1', '2'), '')
    text = Parsed(render(made(banners=(HOSTILE,), settings=(setting,)), [])).text
    assert text.index(HOSTILE) < text.index('optim_wrapper.lr') < text.index('On these')
    assert 'Only the backbone' not in text
    assert 'Only the backbone' in Parsed(render(made(), [])).text


def test_more_than_two_sides() -> None:
    two = made()
    rows = tuple(replace(m, sides=(*m.sides, m.sides[1]), differences=m.differences * 2, paper=()) for m in two.metrics)
    sides = (*two.sides, r.Side('third', two.sides[0].runs))
    three = replace(two, sides=sides, metrics=rows, by_class=(), curves=(), calibration=(), errors=(), confusions=())
    text = Parsed(render(three, [])).text
    assert text.count('On these') == 2
    assert 'third has the higher AP' in ' '.join(text.split())


def test_gallery_is_chosen_by_score_and_seed() -> None:
    images = made().images
    found = chosen(images, 3, each=2)
    assert (found['gains most'], found['loses most']) == ([0, 4], [2, 5])
    assert found == chosen(images, 3, each=2)
    assert not {*found['random']} & {0, 2, 4, 5}
    assert len({tuple(chosen(images, seed, each=2)['random']) for seed in range(9)}) > 1
    same = replace(images, scores=(images.scores[0],) * 2)
    assert [len(part) for part in chosen(same, 0, each=2).values()] == [0, 0, 2]

"""A report of real runs by the command line: its page, its values, its gallery and what they cost."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.compare.test_page import check_page
from tests.support.cli import run_cli


@pytest.fixture(scope='module')
def report(trained_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a trained detector and of a copy that confuses its classes."""
    folder = tmp_path_factory.mktemp('compared')
    for name in ('good', 'bad'):
        shutil.copytree(trained_demo, folder / name)
    file = folder / 'bad/epoch_1.pth'
    content = torch.load(file, weights_only=False)
    content['state_dict']['roi_head.bbox_head.fc_cls.weight'].neg_()
    torch.save(content, file)
    runs = [f'<b>good</b>={folder / "good"}', f'bad={folder / "bad"}']
    done = run_cli('compare', *runs, '--out', folder / 'report', '--samples', '50')
    assert done.status == 0, done.err
    return folder / 'report'


def test_page_shows_what_the_report_holds(report: Path) -> None:
    content = json.loads((report / 'report.json').read_text())
    page = check_page((report / 'report.html').read_text())
    for row in content['metrics']:
        for side in row['sides']:
            assert side['value'] is None or f'{side["value"]:.2f}' in page.text
    assert [one['belongs'] for one in content['settings'] if not one['belongs']] == []
    assert {side['name'] for side in content['sides']} == {'<b>good</b>', 'bad'}
    assert not [tag for tag, _ in page.tags if tag == 'b']
    assert 'not of the architectures' in ' '.join(page.text.split())


def test_gallery_and_cost_come_from_the_networks(report: Path) -> None:
    content = json.loads((report / 'report.json').read_text())
    page = check_page((report / 'report.html').read_text())
    drawn = [attributes for tag, attributes in page.tags if tag == 'img' and 'jpeg' in attributes['src'][:20]]
    assert len(drawn) % 3 == 0
    assert len(drawn) >= 12
    assert 'left out' not in page.text
    for cost in content['costs']:
        assert cost['parameters'] > 20e6
        assert cost['milliseconds']['low'] <= cost['milliseconds']['value'] <= cost['milliseconds']['high']
        assert cost['memory'] > 160 * 160 * 64  # the features of the first stage
    assert content['costs'][0]['memory'] == pytest.approx(content['costs'][1]['memory'], rel=0.5)

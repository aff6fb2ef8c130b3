"""A report of real runs by the command line: its page, its values, its gallery and what they cost."""

import json
import shutil
from pathlib import Path

import torch

from tests.compare.test_page import check_page
from tests.support.cli import run_cli


def test_report_of_a_detector_and_of_one_that_confuses_classes(trained_demo: Path, tmp_path: Path) -> None:
    for name in ('good', 'bad'):
        shutil.copytree(trained_demo, tmp_path / name)
    file = tmp_path / 'bad/epoch_1.pth'
    content = torch.load(file, weights_only=False)
    content['state_dict']['roi_head.bbox_head.fc_cls.weight'].neg_()
    torch.save(content, file)
    report = tmp_path / 'report'
    runs = [f'<b>good</b>={tmp_path / "good"}', f'bad={tmp_path / "bad"}']
    done = run_cli('compare', *runs, '--out', report, '--samples', '200')
    assert done.status == 0, done.err
    content = json.loads((report / 'report.json').read_text())
    page = check_page((report / 'report.html').read_text())
    for value in (side['value'] for row in content['metrics'] for side in row['sides']):
        assert value is None or f'{value:.2f}' in page.text
    assert [one for one in content['settings'] if not one['belongs']] == []
    assert [side['name'] for side in content['sides']] == ['<b>good</b>', 'bad']
    assert 'b' not in {tag for tag, _ in page.tags}
    assert 'not of the architectures' in ' '.join(page.text.split())
    drawn = [attributes for tag, attributes in page.tags if tag == 'img' and 'jpeg' in attributes['src'][:20]]
    assert (len(drawn) >= 12, len(drawn) % 3, 'left out' in page.text) == (True, 0, False)
    for cost in content['costs']:
        assert cost['parameters'] > 18e6
        assert cost['milliseconds']['low'] <= cost['milliseconds']['value'] <= cost['milliseconds']['high']
        assert cost['memory'] > 160 * 160 * 64  # the features of the first stage

"""The benchmarks' command, run for real on a small size, and the page that it writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmres2net.bench import evaluation
from mmres2net.bench.cli import main
from mmres2net.bench.measure import in_turns, machine
from mmres2net.bench.page import table, write_section


def test_evaluation_for_real(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page, figures = tmp_path / 'docs' / 'page.md', tmp_path / 'figures.json'
    flags = ['--images', '10', '--detections', '20', '--repeats', '1', '--json', str(figures), '--page', str(page)]
    assert main(['evaluation', *flags]) == 0
    results = json.loads(figures.read_text())
    for name in ('faster', 'pycocotools'):
        runs = results['runs'][name]
        assert len(runs) == 1
        assert all(one['cpu_seconds'] > 0 and one['peak_mib'] >= one['data_mib'] > 10 for one in runs)
        assert all(one['figures'] == pytest.approx(runs[0]['figures'], abs=1e-12) for one in runs)
    text = page.read_text()
    assert capsys.readouterr().out.strip() in text
    assert '`tools/benchmark.py evaluation --images 10 --detections 20 --repeats 1`' in text
    assert f'10 images with {results["objects"]} objects of 80 classes and 20 detections each' in text
    assert '| pycocotools | ' in text


def test_evaluators_that_disagree_are_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    class Result:
        def __init__(self, ap: float) -> None:
            self.overall = {'mAP': ap}

    found = {'faster': Result(0.5), 'pycocotools': Result(0.5 + 1e-9)}
    monkeypatch.setattr(evaluation, 'evaluate', lambda truth, found_, kind, *, evaluator: found[evaluator])
    monkeypatch.setattr(evaluation, 'in_turns', lambda *args: pytest.fail('timed'))
    assert main(['evaluation', '--images', '2', '--detections', '2']) == 1
    assert 'error: the evaluators disagree by 9.99' in capsys.readouterr().err


def test_generated_data_look_like_val2017() -> None:
    truth, found = evaluation.generate(400, 30)
    areas = np.array([one['area'] for one in truth['annotations']])
    assert len(found) == 400 * 30
    assert {one['image_id'] for one in found} == set(range(1, 401))
    assert len(truth['annotations']) == pytest.approx(400 * 36781 / 5000, rel=0.1)
    # Of COCO's objects, 41 percent are small, 34 medium, 24 large (its web page on the detection evaluation).
    shares = [(areas < 32**2).mean(), ((areas >= 32**2) & (areas < 96**2)).mean(), (areas >= 96**2).mean()]
    assert shares == pytest.approx([0.41, 0.34, 0.24], abs=0.04)
    assert evaluation.generate(3, 5) == evaluation.generate(3, 5)


def test_a_number_out_of_range(capsys: pytest.CaptureFixture) -> None:
    assert main(['evaluation', '--repeats', '0']) == 2
    assert 'error: --images, --detections and --repeats: choose 1 or more' in capsys.readouterr().err


def test_runs_take_turns(tmp_path: Path) -> None:
    log = tmp_path / 'log'
    code = f"""
import json, sys
open({str(log)!r}, 'a').write(sys.argv[1])
print('noise')
print(json.dumps({{'is': sys.argv[1]}}))"""
    results = in_turns({name: ['-c', code, name] for name in 'ab'}, 3)
    assert log.read_text() == 'ababab'
    assert results == {name: [{'is': name}] * 3 for name in 'ab'}
    with pytest.raises(RuntimeError, match=r'a ended with 1:\n(.|\n)*boom'):
        in_turns({'a': ['-c', 'raise SystemExit("boom")']}, 1)


def test_machine() -> None:
    assert 'logical cores' in machine(['numpy'])
    assert f'numpy {np.__version__}' in machine(['numpy'])


def test_peak_memory_is_of_the_process_alone() -> None:
    """In fresh processes: the peak of this one is past, and must not show in theirs either."""
    code = """
import json
from mmres2net.bench.measure import peak_mib
before = peak_mib()
block = bytearray(64 * 2**20)
del block
print(json.dumps({'before': before, 'after': peak_mib()}))"""
    block = np.ones(256 * 2**20 // 8)
    (one,) = in_turns({'a': ['-c', code]}, 1)['a']
    assert one['after'] - one['before'] == pytest.approx(64, abs=4)
    assert one['before'] < 100 < block.nbytes / 2**20


def test_sections_are_renewed_alone(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    for name, text in (('one', 'alpha'), ('two', 'beta'), ('one', 'gamma')):
        write_section(page, name, text)
    text = page.read_text()
    assert text.startswith('# Benchmarks\n')
    assert 'alpha' not in text
    assert text.index('gamma') < text.index('beta')
    assert text.count(': begin') == text.count(': end') == 2
    before = page.read_text()
    write_section(page, 'two', 'beta')
    assert page.read_text() == before
    page.write_text('# Benchmarks\n\nAn older head.\n\n' + before[before.index('<!--') :])
    write_section(page, 'two', 'beta')
    assert page.read_text() == before
    page.write_text('# Something else\n\n<!-- a comment -->\n')
    write_section(page, 'two', 'beta')
    assert page.read_text().startswith('# Something else\n\n<!-- a comment -->\n\n<!-- two: begin -->\n\nbeta')


def test_table() -> None:
    assert table(['what', 's'], [['a', '1']]) == '| what | s |\n| --- | ---: |\n| a | 1 |'

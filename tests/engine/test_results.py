"""The files that runs leave: equal to the log, there for every task, not blank; what fails is left out."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmres2net import plots
from mmres2net.engine import results
from mmres2net.evaluation.matches import average_precision, matches_of
from tests.engine.demo import is_drawn, train_demo


def rows_of(work_dir: Path) -> list[dict[str, str]]:
    with (work_dir / 'results.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_table_equals_the_log(shapes: Path, tmp_path: Path) -> None:
    assert train_demo(tmp_path, shapes, epochs=2).status == 0
    logged = [json.loads(line) for file in tmp_path.glob('*/vis_data/scalars.json') for line in file.open()]
    evaluations = [line for line in logged if 'coco/bbox_mAP' in line]
    rows = rows_of(tmp_path)
    assert [(row['epoch'], row['step']) for row in rows] == [('1', '3'), ('2', '6')]
    for row, line in zip(rows, evaluations, strict=True):
        assert {name: float(row[name]) for name in line if 'coco' in name} == {n: line[n] for n in line if 'coco' in n}
    steps = [line for line in logged if 'loss' in line]
    assert len(steps) == 2  # one at the end of each epoch, with means of all steps so far
    assert float(rows[0]['loss']) == pytest.approx(steps[0]['loss'], abs=1e-4)
    assert float(rows[1]['lr']) == steps[1]['lr']
    assert np.mean([float(row['loss']) for row in rows]) == pytest.approx(steps[1]['loss'], abs=1e-4)


def test_detector(trained_demo: Path) -> None:
    assert is_drawn(trained_demo / 'curves.png')
    assert is_drawn(trained_demo / 'predictions.png')
    assert {path.name.split('_')[0] for path in (trained_demo / 'predictions').iterdir()} <= {'best', 'worst'}
    with np.load(trained_demo / 'evaluation/matches.npz', allow_pickle=False) as file:
        ap = average_precision(matches_of(file))
    assert np.nanmean(ap) == pytest.approx(float(rows_of(trained_demo)[-1]['coco/bbox_mAP']), abs=1e-12)


def test_curves_and_names_that_are_hard_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr(results, 'draw_lines', lambda figure, panels: drawn.update(panels))
        rows = [{'step': step, 'mAP_s': 0.5, 'mAP_l': -1, 'AP_cat': 0.1} for step in (10, 20)]
        history = {'loss': np.arange(40.0), 'loss_cls': np.full(40, np.nan), 'lr': np.full(40, 0.1)}
        results.draw_history(tmp_path / 'made.png', 40, history, rows, ['cat'])
    lines = {title: {line[0]: line[2:4] for line in panel} for (title, *_), panel in drawn.items()}
    assert {title: list(panel) for title, panel in lines.items()} == {
        'losses': ['loss'], 'metrics': ['mAP_s'], 'learning rate': ['lr']
    }  # fmt: skip
    assert [part[-1] for part in lines['losses']['loss']] == [40, 38.5]  # the mean of two steps
    assert [part.tolist() for part in lines['metrics']['mAP_s']] == [[10, 20], [0.5, 0.5]]
    assert plots.class_labels(['$x', 'a' * 300]) == [r'\$x', f'{"a" * 14}…{"a" * 9}']
    assert plots.class_labels(['cat', 'кошка', chr(0xE000)]) == ['cat', 'кошка', 'class 2']  # a letter of no font
    odd = {('odd', 'step', ''): [(name, 'red', [1, 2], [3, 4], None) for name in ('$x_1$', '犬', 'кошка', '')]}
    plots.save(tmp_path / 'odd.png', lambda figure: plots.draw_lines(figure, odd))
    assert is_drawn(tmp_path / 'odd.png')


def test_a_plot_that_fails_does_not_end_a_run(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError('no ink')

    for name in ('draw_lines', 'write_rows'):
        monkeypatch.setattr(results, name, fail)
    done = train_demo(tmp_path, shapes)
    assert (done.status, 'no ink' in done.out, (tmp_path / 'predictions.png').exists()) == (0, True, True)
    assert not (tmp_path / 'curves.png').exists()

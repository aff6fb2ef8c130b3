"""The files that runs leave: equal to the log, there for every task, not blank; what fails is left out."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmres2net import plots
from mmres2net.engine import result_plots
from mmres2net.evaluation.matches import average_precision, matches_of
from tests.engine.demo import is_drawn, train_demo

EVERY = ('curves.png', 'labels.png', 'train_batch.png', 'per_class.png', 'confusion_matrix.png', 'predictions.png')


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
    for name in (*EVERY, 'pr_curve.png', 'f1_curve.png'):
        assert is_drawn(trained_demo / name), name
    assert {path.name.split('_')[0] for path in (trained_demo / 'predictions').iterdir()} <= {'best', 'worst'}
    with np.load(trained_demo / 'evaluation/matches.npz', allow_pickle=False) as file:
        ap = average_precision(matches_of(file))
    assert np.nanmean(ap) == pytest.approx(float(rows_of(trained_demo)[-1]['coco/bbox_mAP']), abs=1e-12)


def test_a_plot_that_fails_does_not_end_a_run(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError('no ink')

    for name in ('draw_curves', 'draw_bars'):
        monkeypatch.setattr(plots, name, fail)
    monkeypatch.setattr(result_plots, 'write_rows', fail)
    done = train_demo(tmp_path, shapes)
    assert (done.status, 'no ink' in done.out, (tmp_path / 'pr_curve.png').exists()) == (0, True, True)
    assert not (tmp_path / 'curves.png').exists()

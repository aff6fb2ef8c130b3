"""Two processes, as a distributed test runs them: sums meet, and what the sampler showed twice counts once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.evaluator import Evaluator

COUNTS = (7, 6, 1)  # odd: of eight places in two processes, one shows the first image again; of two, both show the only


def image(i: int) -> dict[str, Any]:
    """A sample as an evaluator hands it over; the first three are of one data set, the others of another."""
    mask = torch.zeros(1, 9, 12, dtype=torch.uint8)
    mask[:, 2 : 6 + i % 3, 3 : 5 + i] = 1
    noise = torch.rand(1, 9, 12, generator=torch.Generator().manual_seed(i))
    return {
        'img_path': f'{i}.jpg',
        'dataset_name': 'A' if i < 3 else 'B',
        'seg_logits': {'data': (mask + noise) / 2},
        'gt_sem_seg': {'data': mask},
    }


def evaluate_share(rank: int, world: int, folder: str) -> None:
    """Evaluate every ``world``-th image from ``rank`` on, in batches of some sizes; write what this process gets."""
    if world > 1:
        dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world)
    figures = {}
    for count in COUNTS:
        mine = [image(i % count) for i in range(rank, count + (-count) % world, world)]
        for batch in (1, 2, 3):
            evaluator = Evaluator({'type': 'mmres2net.SaliencyMetric'})
            for at in range(0, len(mine), batch):
                evaluator.process(data_samples=mine[at : at + batch], data_batch=None)
            figures[f'{count}, {batch}'] = evaluator.evaluate(count)
    Path(folder, f'{world}-{rank}.json').write_text(json.dumps(figures))
    if world > 1:
        dist.barrier()  # who leaves first may end the threads that the other still talks to
        dist.destroy_process_group()


def test_two_processes_get_the_figures_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MMEngine exchanges results in a folder here
    evaluate_share(0, 1, str(tmp_path))
    mp.spawn(evaluate_share, (2, str(tmp_path)), nprocs=2)
    alone, first, second = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('1-0', '2-0', '2-1'))
    assert first == second
    for case, figures in alone.items():
        assert first[case] == pytest.approx(figures, abs=1e-12), case
    assert {name.partition('/')[0] for name in alone['7, 1']} == {'A', 'B'}
    assert 'maxF' in alone['1, 1']
    assert 0 < alone['1, 1']['MAE'] != alone['6, 1']['A/MAE']

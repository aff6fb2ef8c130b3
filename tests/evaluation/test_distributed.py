"""Two processes, as a distributed test runs them: results meet, and what the sampler showed twice counts once."""

import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.evaluator import Evaluator

from tests.evaluation.samples import coco_truth, instances

COUNT = 5  # odd: of six places in two processes, one shows the first image again


def evaluate_share(rank: int, world: int, folder: str) -> None:
    """Evaluate every ``world``-th image from ``rank`` on with all metrics; write what this process gets."""
    if world > 1:
        dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world)
    cfg = [
        {'type': 'mmres2net.COCOMetric', 'ann_file': f'{folder}/gt.json'},
        {'type': 'mmres2net.VOCMetric'},
        {'type': 'mmres2net.IoUMetric'},
    ]
    evaluator = Evaluator(cfg)
    evaluator.dataset_meta = {'classes': ['class 1', 'class 2', 'class 3']}
    places = COUNT + (-COUNT) % world
    for i in range(rank, places, world):
        evaluator.process(data_samples=[image(i % COUNT, f'{folder}/gt.json')], data_batch=None)
    metrics = evaluator.evaluate(COUNT)
    Path(folder, f'{world}-{rank}.json').write_text(json.dumps(metrics))
    if world > 1:
        dist.barrier()  # who leaves first may end the threads that the other still talks to
        dist.destroy_process_group()
        os._exit(0)  # at the end of the interpreter, a thread of the process group aborts now and then


def image(i: int, ann_file: str) -> dict:
    """A sample that serves all metrics; predictions of the first image are worse than the others'."""
    mine = [one for one in json.loads(Path(ann_file).read_text())['annotations'] if one['image_id'] == i + 1]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (one['bbox'] for one in mine)]
    labels = [one['category_id'] // 10 - 1 for one in mine]
    shift = 40 if i == 0 else 1
    found = instances([[x + shift, y, u + shift, v] for x, y, u, v in corners], labels, [0.5 + i / 10] * len(mine))
    pixels = torch.arange(12).reshape(1, 3, 4) % 3
    return {
        'img_id': i + 1,
        'pred_instances': found,
        'gt_instances': instances(corners, labels),
        'ignored_instances': instances([], []),
        'pred_sem_seg': {'data': (pixels + (pixels > i % 3)) % 3},
        'gt_sem_seg': {'data': pixels},
    }


def test_two_processes_get_the_metrics_of_one(tmp_path: Path) -> None:
    (tmp_path / 'gt.json').write_text(json.dumps(coco_truth(COUNT, 3, seed=1)))
    evaluate_share(0, 1, str(tmp_path))
    mp.spawn(evaluate_share, (2, str(tmp_path)), nprocs=2)
    alone, first, second = ((tmp_path / f'{name}.json').read_text() for name in ('1-0', '2-0', '2-1'))
    assert first == second == alone
    metrics = json.loads(alone)
    assert 0 < metrics['coco/bbox_mAP'] < 1
    assert 0 < metrics['pascal_voc/mAP'] < 1
    assert 0 < metrics['mIoU'] < 100

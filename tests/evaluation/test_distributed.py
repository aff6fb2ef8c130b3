"""Two processes evaluate as one does: metrics of all tasks, the arrays and images of a run, without a shared disk."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from mmres2net.engine.launcher import join, processes
from tests.engine.demo import evaluate_demo
from tests.engine.test_processes import by_torchrun, free_ports
from tests.evaluation.samples import coco_truth, instances

COUNTS = {5: True, 3: False, 1: False}  # images, and whether the sampler repeats one: else a process may have none


def evaluate(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Evaluate every ``world``-th image from ``rank`` on with all metrics."""
    names = ['COCOMetric', 'VOCMetric', 'IoUMetric', 'SaliencyMetric']
    cfg: list[dict[str, Any]] = [{'type': f'mmres2net.{name}'} for name in names]
    cfg[0] |= {'ann_file': f'{folder}/gt.json', 'metric': ['bbox', 'segm']}
    evaluator = Evaluator([*cfg, {'type': 'mmpretrain.Accuracy', 'topk': (1, 2)}])
    evaluator.dataset_meta = {'classes': ['class 1', 'class 2', 'class 3']}
    found = {}
    for count, repeated in COUNTS.items():
        places = count + (-count) % world if repeated else count
        for i in range(rank, places, world):
            evaluator.process(data_samples=[image(i % count, f'{folder}/gt.json')], data_batch=None)
        found[str(count)] = evaluator.evaluate(count)
    return found


def image(i: int, ann_file: str) -> dict[str, Any]:
    """A sample that serves all metrics; predictions of the first image are worse than the others'."""
    mine = [one for one in json.loads(Path(ann_file).read_text())['annotations'] if one['image_id'] == i + 1]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (one['bbox'] for one in mine)]
    labels = [one['category_id'] // 10 - 1 for one in mine]
    shift = 40 if i == 0 else 1
    found = instances([[x + shift, y, u + shift, v] for x, y, u, v in corners], labels, [0.5 + i / 10] * len(mine))
    masks = torch.zeros(len(mine), 400, 400, dtype=torch.bool)
    for mask, (x, y, u, v) in zip(masks, corners, strict=True):
        mask[y : v - 3 - i, x:u] = True
    pixels = torch.arange(12).reshape(1, 3, 4) % 3
    return {
        'img_id': i + 1,
        'pred_instances': {**found, 'masks': masks},
        'gt_instances': instances(corners, labels),
        'ignored_instances': instances([], []),
        'pred_sem_seg': {'data': (pixels + (pixels > i % 3)) % 3},
        'gt_sem_seg': {'data': pixels % 2},
        'seg_logits': {'data': (pixels + i) / 9},
        'pred_score': torch.tensor([0.5, 0.3, 0.2]).roll(i % 2),
        'gt_label': torch.tensor([0]),
    }


def share(rank: int, port: int, folder: str, checkpoint: str, data: str) -> None:
    place = Path(folder, str(rank))  # a disk of its own
    place.mkdir()
    os.chdir(place)
    os.environ |= by_torchrun(rank, port)
    with processes('pytorch'):
        join(Config({}))
        (place / 'metrics.json').write_text(json.dumps(evaluate(rank, 2, folder)))
    os.environ |= by_torchrun(rank, port + 1)
    on_five_images(checkpoint, 'wd', data, '--launcher', 'pytorch')


def on_five_images(checkpoint: str, work_dir: str, data: str, *flags: str) -> None:
    """Test a detector on five images: of six places in two processes, one shows the first image again."""
    options = ('test_dataloader.dataset.indices=5',)
    flags = ('--draw', '4', '--out', 'all.pkl', *flags)
    done = evaluate_demo(checkpoint, work_dir, data, *flags, options=options)
    assert done.status == 0, done.err


@pytest.fixture(scope='module')
def ended(tmp_path_factory: pytest.TempPathFactory, trained_demo: Path, shapes: Path) -> Path:
    folder = tmp_path_factory.mktemp('evaluated')
    (folder / 'gt.json').write_text(json.dumps(coco_truth(5, 3, seed=1)))
    mp.spawn(share, (free_ports(2)[0], str(folder), str(trained_demo / 'epoch_1.pth'), str(shapes)), nprocs=2)
    return folder


def test_two_processes_get_the_metrics_of_one(ended: Path) -> None:
    alone = evaluate(0, 1, str(ended))
    assert {(ended / f'{rank}/metrics.json').read_text() for rank in (0, 1)} == {json.dumps(alone)}
    for name in ('coco/bbox_mAP', 'coco/segm_mAP', 'pascal_voc/mAP', 'MAE'):
        assert 0 < alone['5'][name] < 1
    assert 0 < alone['5']['accuracy/top1'] < 100


def test_two_processes_test_a_detector_as_one(ended, trained_demo, shapes, monkeypatch) -> None:
    monkeypatch.chdir(ended)
    on_five_images(str(trained_demo / 'epoch_1.pth'), 'alone', str(shapes))
    one, two = ended / 'alone', ended / '0/wd'
    assert (one / 'test_results.csv').read_text() == (two / 'test_results.csv').read_text()
    arrays = [dict(np.load(folder / 'evaluation/matches.npz')) for folder in (one, two)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, values in arrays[0].items():
        np.testing.assert_array_equal(values, arrays[1][name], err_msg=name)
    images = [{path.name: path.read_bytes() for path in (folder / 'predictions').iterdir()} for folder in (one, two)]
    assert len(images[0]) == 4
    assert images[0] == images[1]
    first, second = (pickle.loads((folder / 'all.pkl').read_bytes()) for folder in (ended, ended / '0'))
    assert [one['img_id'] for one in first] == [one['img_id'] for one in second]
    torch.testing.assert_close(*([one['pred_instances'] for one in part] for part in (first, second)), rtol=0, atol=0)
    assert not list(ended.glob('**/.dist_test'))

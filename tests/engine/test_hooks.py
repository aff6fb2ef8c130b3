"""Drawings of predictions of every task, drawings that fail, and the file of predictions."""

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from PIL import Image
from pycocotools.mask import decode

from mmres2net.engine.results import DumpPredictions, ResultsHook, draw_sample

META = {'classes': ('cat', 'dog'), 'palette': [(250, 0, 0), (0, 0, 250)]}
RED, BLUE = META['palette']


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.new('RGB', (200, 100), (40, 120, 40)).save(tmp_path / 'image.png')
    return str(tmp_path / 'image.png')


def detection(image: str, box: tuple[float, ...] = (20, 20, 80, 80), score: float = 0.9) -> DetDataSample:
    mask = np.zeros((1, 100, 200), np.uint8)
    mask[0, 20:80, 20:80] = 1
    truth = InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([0]), masks=BitmapMasks(mask, 100, 200))
    found = InstanceData(
        bboxes=torch.tensor([box]), labels=torch.tensor([1]), scores=torch.tensor([score]),
        masks=torch.from_numpy(mask).bool(),
    )  # fmt: skip
    sample = DetDataSample(metainfo=dict(img_path=image))
    sample.gt_instances, sample.pred_instances = truth, found
    return sample


def segmentation(image: str) -> SegDataSample:
    truth = torch.zeros(1, 100, 200, dtype=torch.long)
    truth[:, :50] = 255
    sample = SegDataSample(metainfo=dict(img_path=image))
    sample.gt_sem_seg, sample.pred_sem_seg = PixelData(data=truth), PixelData(data=torch.ones_like(truth))
    sample.seg_logits = PixelData(data=torch.randn(2, 100, 200))
    return sample


def share(sheet: np.ndarray, color: tuple[int, int, int]) -> float:
    lean = sheet[..., color.index(250)].astype(int) - sheet[..., 2 - color.index(250)]
    return float((lean > 60).mean())


@pytest.mark.parametrize('make', [detection, segmentation])
def test_annotations_are_left_and_predictions_right(image: str, make: Any) -> None:
    sample = make(image)
    if 'pred_sem_seg' in sample:
        sample.pred_sem_seg.data = sample.pred_sem_seg.data.float()  # as mmseg's binary heads give it
    sheet = draw_sample(sample, META)
    left, right = np.array_split(sheet, 2, axis=1)
    assert min(share(left, RED), share(right, BLUE)) > 0.05
    assert share(left, BLUE) == share(right, RED) == 0


def test_the_best_and_the_worst_images_are_drawn(image: str, tmp_path: Path) -> None:
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=META)))
    hook = ResultsHook(images=2)
    right, wrong, absent, broken = (detection(image) for _ in range(4))
    right.pred_instances.labels = torch.tensor([0])
    absent.set_metainfo(dict(img_path='absent.png'))
    right.set_metainfo(dict(img_path=shutil.copy(image, tmp_path / 'right.png')))
    broken.pred_instances = InstanceData(bboxes=torch.zeros(1, 4))
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, None, [absent, broken, wrong, right])
    assert [record and record['score'] for record in hook._records] == [0, None, 0, 1]
    hook._write_images(tmp_path / 'predictions', [hook._drawn])
    assert {path.name for path in (tmp_path / 'predictions').iterdir()} == {'best_1_right.png', 'worst_1_image.png'}


def test_predictions_in_a_file_are_small_and_have_no_annotations(image: str, tmp_path: Path) -> None:
    dump = DumpPredictions(out_file_path=str(tmp_path / 'x.pkl'))
    one = DataSample(metainfo=dict(img_path=image)).set_gt_label(0).set_pred_label(1).set_pred_score(torch.ones(2) / 2)
    samples = [detection(image), segmentation(image), one]
    dicts = [sample.to_dict() for sample in samples]
    dump.process(None, dicts)
    dump.evaluate(len(samples))
    assert 'gt_instances' in dicts[0]  # the other metrics need it
    found, segmented, classified = pickle.loads((tmp_path / 'x.pkl').read_bytes())
    (mask,) = found['pred_instances']['masks']
    assert np.array_equal(decode(mask), samples[0].pred_instances.masks[0].numpy())
    assert found['pred_instances']['bboxes'].tolist() == [[20.0, 20.0, 80.0, 80.0]]
    assert segmented['pred_sem_seg']['data'].dtype == torch.uint8
    assert torch.equal(segmented['pred_sem_seg']['data'].long(), samples[1].pred_sem_seg.data)
    assert classified['pred_label'].tolist() == [1]
    for content in (found, segmented, classified):
        assert not [key for key in content if key.startswith('gt_') or 'logits' in key]

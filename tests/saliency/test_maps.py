"""Saved maps: what is in them, where they lie, and that their figures are the reported ones."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.saliency import SaliencyMapsHook
from mmres2net.saliency.maps import grey_map, write_map
from tests.saliency.samples import run, sample, samples_of


class Listed(BaseDataset):
    """Images that nobody reads: a sample is its path and name, as SaliencyDataset has them."""

    def __init__(self, paths: Sequence[str], dataset_name: str) -> None:
        self.paths, self.name = list(paths), dataset_name
        super().__init__(serialize_data=False)

    def load_data_list(self) -> list[dict[str, Any]]:
        return [{'img_path': path, 'dataset_name': self.name} for path in self.paths]


class Recalls(BaseModel):
    """Predicts what it was given."""

    def __init__(self, answers: Sequence[SegDataSample]) -> None:
        super().__init__()
        self.answers = {one.img_path: one for one in answers}

    def forward(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        return [self.answers[path] for path in data['img_path']]


def runner_of(folder: Path, answers: Sequence[SegDataSample], **metric: Any) -> Runner:
    names = dict.fromkeys(one.dataset_name for one in answers)
    parts = [Listed([one.img_path for one in answers if one.dataset_name == name], name) for name in names]
    return Runner(
        model=Recalls(answers),
        work_dir=str(folder),
        test_dataloader={
            'dataset': ConcatDataset(parts), 'batch_size': 2, 'num_workers': 0,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        test_cfg={'type': 'TestLoop'},
        test_evaluator={'type': 'mmres2net.SaliencyMetric', **metric},
        custom_hooks=[{'type': 'mmres2net.SaliencyMapsHook'}],
        experiment_name=folder.name,
    )  # fmt: skip


def test_a_run_writes_what_it_measures(tmp_path: Path) -> None:
    answers = [*samples_of(range(3), 'ECSSD'), *samples_of(range(2), 'HKU-IS')]
    figures = runner_of(tmp_path, answers).test()
    written = sorted(path.relative_to(tmp_path / 'saliency').as_posix() for path in tmp_path.rglob('*.png'))
    assert written == ['ECSSD/0.png', 'ECSSD/1.png', 'ECSSD/2.png', 'HKU-IS/0.png', 'HKU-IS/1.png']
    assert not list(tmp_path.rglob('*.part'))
    again = []
    for one in answers:
        path = tmp_path / 'saliency' / one.dataset_name / f'{Path(one.img_path).stem}.png'
        with Image.open(path) as image:
            assert image.mode == 'L'
            grey = np.asarray(image)
        assert np.array_equal(grey, np.rint(255 * one.seg_logits.data[0].double().numpy()))
        again.append(sample(grey / 255, one.gt_sem_seg.data[0], one.img_path, one.dataset_name))
    assert run(again) == figures
    assert 0.3 < figures['ECSSD/maxF'] < 1


def test_rounding() -> None:
    values = torch.tensor([[0, 0.25, 0.5, 1, 1 / 255, 0.49 / 255, 0.51 / 255, 254.4 / 255, 1.00005, -0.00005]])
    grey = grey_map(values[None], 'x')
    assert (grey.tolist(), grey.dtype) == ([[0, 64, 128, 255, 1, 0, 1, 254, 255, 0]], np.uint8)


def test_images_without_masks_are_written_too(tmp_path: Path) -> None:
    bare = SegDataSample(metainfo={'img_path': 'a/cat.jpg', 'dataset_name': 'own'})
    bare.seg_logits = PixelData(data=torch.rand(1, 5, 7))
    assert runner_of(tmp_path, [bare], format_only=True).test() == {}
    with Image.open(tmp_path / 'saliency/own/cat.png') as image:
        assert image.size == (7, 5)


def test_writing_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'maps/cat.png'
    for value in (7, 9):
        write_map(path, np.full((2, 3), value, np.uint8))
        with Image.open(path) as image:
            assert np.asarray(image).tolist() == [[value] * 3] * 2
    before = path.read_bytes()

    def broken(image: Image.Image, place: Path, **_: Any) -> None:
        Path(place).write_bytes(b'half a pic')
        raise OSError('No space left on device')

    monkeypatch.setattr(Image.Image, 'save', broken)
    with pytest.raises(OSError, match='No space left'):
        write_map(path, np.ones((2, 3), np.uint8))
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ['cat.png']


SAME_NAMES = [
    ([('a/cat.jpg', 'X'), ('b/cat.jpg', 'X')], True), ([('cat.jpg', 'X'), ('cat.png', 'X')], True),
    ([('a/cat.jpg', ''), ('b/cat.jpg', '')], True),
    ([('a/cat.jpg', 'X'), ('b/cat.jpg', 'Y'), ('a/cat.jpg', 'X')], False),
]  # fmt: skip


@pytest.mark.parametrize(('images', 'refused'), SAME_NAMES)
def test_two_images_with_one_name_are_refused_before_the_test(images: list[tuple[str, str]], refused: bool) -> None:
    dataset = ConcatDataset([Listed([path], name) for path, name in images])
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    with pytest.raises(UserError, match=r'cat\.jpg and .*cat\.\w+') if refused else nullcontext():
        SaliencyMapsHook().before_test(runner)  # type: ignore[arg-type]

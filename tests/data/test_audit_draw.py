"""The drawn samples show what the annotations say, where they say it, in the colours of their classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmres2net.data.audit.coco import coco_things
from mmres2net.data.audit.draw import GREY, LEAST, MOST, colour, colour_of, draw_sample, draw_samples
from mmres2net.data.audit.job import audit
from mmres2net.data.audit.split import Sample, Split

CLASSES = ('background', 'cat', 'dog')
SIZE = (800, 600)  # drawn as it is: between the limits


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / 'a.png'
    Image.new('RGB', SIZE, (40, 40, 40)).save(path)
    return path


def entry(box: list[float], category: int = 1, **more: Any) -> tuple[int, dict[str, Any]]:
    return 0, dict(id=1, bbox=box, area=1, category_id=category, **more)


def split_of(*samples: Sample) -> Split:
    names = dict(enumerate(CLASSES)) | {9: 'sphere'}
    return Split('train', 'x', 'X', CLASSES, samples=list(samples), things=lambda sample: coco_things(sample, names))


def test_box_and_name_are_where_they_belong(image: Path) -> None:
    sample = Sample(str(image), SIZE, [entry([100, 200, 300, 250])])
    drawn = np.asarray(draw_sample(split_of(sample), sample))
    of_class = (drawn[:600] == colour(1)).all(-1)
    rows, columns = np.nonzero(of_class[200:])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (100, 399, 0, 249)
    assert not of_class[210:440, 110:390].any()  # nothing inside the box
    assert of_class[180:200, 100:140].any()  # the name's patch above its upper left corner
    assert not of_class[:175].any()


def test_names_do_not_cover_each_other(image: Path) -> None:
    sample = Sample(str(image), SIZE, [entry([100, 200, 300, 250], 1), entry([100, 200, 300, 250], 2)])
    drawn = np.asarray(draw_sample(split_of(sample), sample))[:200]
    patches = [(drawn == colour(index)).all(-1).sum() for index in (1, 2)]
    assert min(patches) > 300  # of the 500 or so of each patch, the letters aside


@pytest.mark.parametrize('crowd', [False, True])
def test_masks_of_objects(image: Path, crowd: bool) -> None:
    runs = {'size': [600, 800], 'counts': [600 * 300, 600 * 200, 600 * 300]}  # columns 300 to 499
    mask = runs if crowd else [[300, 0, 500, 0, 500, 600, 300, 600]]
    sample = Sample(str(image), SIZE, [entry([300, 0, 200, 600], segmentation=mask, iscrowd=int(crowd))])
    drawn = np.asarray(draw_sample(split_of(sample), sample)).astype(int)
    share = 80 / 255
    blend = [(1 - share) * 40 + share * channel for channel in colour(1)]
    assert np.abs(drawn[300, 400] - blend).max() <= 1
    assert drawn[300, 290].tolist() == [40, 40, 40]


def test_broken_annotations_are_drawn_as_far_as_they_go(image: Path) -> None:
    bad = [
        entry([700, 500, 400, 400]),
        entry([50, 50, -10, 20]),
        entry([10, 10, 50, 50], 9),
        entry([10, 10, 50, 50], 77),
        entry([1, 2]),
        entry([100, 100, 50, 50], segmentation=[[1, 2], 'x', None]),
        entry([100, 100, 50, 50], segmentation={'size': [3, 3], 'counts': [1]}),
        entry([100, 100, 50, 50], segmentation='x'),
        entry([100, 100, 50, 50], segmentation=[[1, 1, 9, 'x', 1, 9], [1, 1, 9, float('nan'), 1, 9]]),
        entry([-1e300, 100, 1e301, 50]),
        entry([float('nan'), 100, 50, 50]),
        entry([100, 100, float('inf'), 50]),
    ]
    sample = Sample(str(image), SIZE, bad)
    drawn = np.asarray(draw_sample(split_of(sample), sample))
    assert (drawn == GREY).all(-1).any()  # 'sphere' is no class of the config
    assert drawn.shape[1] == 800


def test_semantic_mask(image: Path, tmp_path: Path) -> None:
    mask = np.zeros((600, 800), np.uint8)
    mask[:, 200:400], mask[:, 400:600], mask[:, 600:] = 2, 255, 77
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    split = Split('val', 'x', 'X', CLASSES, 'pixels', mask_values=dict(enumerate(CLASSES)) | {255: ''})
    drawn = np.asarray(draw_sample(split, Sample(str(image), mask=str(tmp_path / 'mask.png')))).astype(int)
    assert drawn[300, 100].tolist() == [40, 40, 40]
    for column, shade in ((300, colour_of(CLASSES, 'dog')), (500, (255, 255, 255)), (700, (255, 0, 0))):
        assert np.abs(drawn[300, column] - (np.array(shade) + 40) / 2).max() <= 1
    assert (drawn[600:] == colour_of(CLASSES, 'dog')).all(-1).any()  # the legend below


@pytest.mark.parametrize('content', [b'', None, 'RGB'])
def test_masks_that_cannot_be_drawn(image: Path, tmp_path: Path, content: Any) -> None:
    path = tmp_path / 'mask.png'
    if content == 'RGB':
        Image.new('RGB', SIZE).save(path)
    elif content is not None:
        path.write_bytes(content)
    split = Split('val', 'x', 'X', CLASSES, 'pixels', mask_values=dict(enumerate(CLASSES)))
    drawn = np.asarray(draw_sample(split, Sample(str(image), mask=str(path))))
    assert (drawn[600:] == GREY).all(-1).any()


@pytest.mark.parametrize(('size', 'width'), [((20, 10), LEAST), ((4000, 100), MOST), ((900, 700), 900)])
def test_small_images_are_enlarged_and_large_ones_reduced(tmp_path: Path, size: tuple[int, int], width: int) -> None:
    Image.new('L', size).save(tmp_path / 'a.png')
    sample = Sample(str(tmp_path / 'a.png'), size, [entry([1, 1, 5, 5])])
    assert draw_sample(split_of(sample), sample).width == width


def test_turned_image_is_drawn_as_loaders_read_it(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new('RGB', (800, 1000)).save(tmp_path / 'a.jpg', exif=tag)
    sample = Sample(str(tmp_path / 'a.jpg'), (1000, 800), [])
    assert draw_sample(split_of(sample), sample).width == 1000


def test_samples_are_spread_over_what_can_be_drawn(tmp_path: Path) -> None:
    samples = []
    for i in range(10):
        path = tmp_path / f'{i}.png'
        Image.new('RGB', (8, 8), (i, 0, 0)).save(path)
        samples.append(Sample(str(path), (8, 8), [entry([1, 1, 4, 4])] if i else []))
    (tmp_path / '9.png').write_text('damaged')
    split = split_of(*samples)
    [report] = audit([split], workers=1)
    files = draw_samples(split, report, tmp_path / 'out', 4)
    assert [path.name for path in files] == [f'train_0{k}.jpg' for k in (1, 2, 3, 4)]
    assert [path.is_file() for path in files] == [True] * 4
    assert len(draw_samples(split, report, tmp_path / 'out', 99)) == 8  # not the damaged, not the empty one


def test_neighbouring_classes_differ() -> None:
    distance = [np.abs(np.subtract(colour(i), colour(i + 1))).sum() for i in range(200)]
    assert min(distance) > 150
    assert len({colour(i) for i in range(80)}) == 80

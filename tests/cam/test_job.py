"""The command: images of real runs, flags that do not fit, broken images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net.cam import job
from mmres2net.cam.tasks import network_of
from mmres2net.engine.source import read_source
from mmres2net.errors import UserError
from tests.cam import models
from tests.support import tiny
from tests.support.exported import OTHER_CLASSES

for package in ('mmpretrain', 'mmdet', 'mmseg', 'pytorch_grad_cam'):
    pytest.importorskip(package)


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('images')
    for name, mode in (('odd', 'RGB'), ('gray', 'L'), ('alpha', 'RGBA')):
        models.write_image(folder / f'{name}.png', 67, 91, mode)
    return folder


def test_two_networks_side_by_side(tiny_models: dict, images: Path, tmp_path: Path) -> None:
    flags = ['--against', *tiny_models['classifier'], '--out', str(tmp_path / 'out')]
    assert job.main([*tiny_models['resnet'], '--images', str(images), *flags]) == 0
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'odd.png', 'gray.png', 'alpha.png'}
    with Image.open(tmp_path / 'out' / 'odd.png') as sheet:
        assert sheet.width > 3 * 320


# 67 x 91 becomes 72 x 97 (97.8 cut); of that the center of 64 x 64, from row 4 and column 16 on.
CROP = (4 * 67 / 72, 16 * 91 / 97, 68 * 67 / 72, 80 * 91 / 97)
SEEN = {'classifier': CROP, 'resnet': CROP, 'segmentor': (0, 0, 67, 91), 'detector': (0, 0, 67, 91)}


@pytest.mark.parametrize('name', SEEN)
def test_the_map_lies_where_the_network_sees_the_image(tiny_models: dict, images: Path, name: str) -> None:
    result = job.explain(network_of(read_source(*tiny_models[name])), None, images / 'odd.png')
    assert (result.heat.shape, result.heat.dtype, result.heat.max()) == ((67, 91), np.float32, 1)
    assert result.network.layer == 'backbone.layer4'
    classes = {'classifier': models.CLASSES, 'resnet': OTHER_CLASSES}.get(name, tiny.CLASSES)
    assert result.text.startswith(f'{classes[result.explanation.label].split(",")[0]}: ')
    np.testing.assert_allclose(result.image.visible, SEEN[name], rtol=1e-6)


MISTAKES = ['--class tensh', '--class 3', '--layer layer9', '--layer head.fc', '--layer backbone']
MISTAKES += ['--against a b c', '--against resnet50_14w_8s', '--device cuda:77', '--out /proc/x']


@pytest.mark.parametrize('flags', MISTAKES)
def test_mistakes(tiny_models: dict, images: Path, flags: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=flags.split()[-1]):
        job.main(
            [*tiny_models['classifier'], '--images', str(images / 'odd.png'), '--out', str(tmp_path), *flags.split()]
        )
    assert not list(tmp_path.rglob('*.png'))


def test_a_class_has_to_mean_the_same_in_all_networks(tiny_models: dict) -> None:
    networks = [network_of(read_source(*tiny_models[name])) for name in ('classifier', 'resnet')]
    assert job.labels_of('tench', networks) == [0, 1]
    for text in ('1', 'stork'):  # another class in each, and one that the first lacks
        with pytest.raises(UserError, match=f'--class {text}'):
            job.labels_of(text, networks)


def test_broken_images_are_skipped(tiny_models, images, tmp_path, capsys) -> None:
    broken = tmp_path / 'broken.png'
    broken.write_bytes((images / 'odd.png').read_bytes()[:300])
    models.write_image(tmp_path / 'thin.png', 1, 400)  # which Resize makes less than a pixel high
    flags = ['--images', str(tmp_path), str(images / 'odd.png'), '--out', str(tmp_path / 'out')]
    assert job.main([*tiny_models['detector'], *flags]) == 1
    assert {'broken.png', 'thin.png'} <= {Path(w.rstrip(':,')).name for w in capsys.readouterr().err.split()}
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 1
    for path in (broken, tmp_path / 'absent.png'):
        with pytest.raises(UserError, match=path.name):
            job.main([*tiny_models['classifier'], '--images', str(path), '--out', str(tmp_path / 'out')])

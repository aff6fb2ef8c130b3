"""The command: images and arrays of real runs, flags that do not fit, broken images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmres2net.cam import job
from mmres2net.cam.core import METHODS
from mmres2net.errors import UserError
from tests.cam import models
from tests.support import tiny

pytest.importorskip('mmpretrain')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('pytorch_grad_cam')
OTHER = ('drake', 'tench', 'stork', 'ptarmigan')
RESNET = dict(type='mmpretrain.ResNet', depth=18, out_indices=(3,))
CONFIGS = {
    'res2net': models.classifier(),
    'resnet': models.classifier(RESNET, OTHER, 512),
    'segmentor': tiny.segmentor(),
    'detector': tiny.detector(),
}


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    folder = tmp_path_factory.mktemp('models')
    return {name: tiny.write_model(folder, name, config) for name, config in CONFIGS.items()}


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('images')
    for name, mode in (('odd', 'RGB'), ('gray', 'L'), ('alpha', 'RGBA')):
        models.write_image(folder / f'{name}.png', 67, 91, mode)
    return folder


def test_two_networks_side_by_side(written: dict, images: Path, tmp_path: Path) -> None:
    flags = ['--against', *written['res2net'], '--out', str(tmp_path / 'out'), '--arrays']
    assert job.main([*written['resnet'], '--images', str(images), *flags]) == 0
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {f'{stem}{suffix}' for stem in ('odd', 'gray', 'alpha') for suffix in ('.png', '.npz')}
    with Image.open(tmp_path / 'out' / 'odd.png') as sheet:
        assert sheet.width > 3 * 320
    found = np.load(tmp_path / 'out' / 'odd.npz')
    assert (found['maps'].shape, found['maps'].dtype) == ((2, 67, 91), np.float32)
    assert found['maps'].min() >= 0
    assert found['maps'].max() <= 1
    assert found['layers'].tolist() == ['backbone.layer4', 'backbone.layer4']
    assert found['configs'].tolist() == ['resnet', 'res2net']
    assert found['weights'].tolist() == ['resnet.pth', 'res2net.pth']
    first, second = (int(label) for label in found['labels'])
    assert found['classes'].tolist() == [OTHER[first], models.CLASSES[second]]
    assert (found['scores'] > 1 / 4).all()
    # 67 x 91 becomes 72 x 97 (97.8 cut); of that the center of 64 x 64, from row 4 and column 16 on.
    expected = np.array([[4 * 67 / 72, 16 * 91 / 97, 68 * 67 / 72, 80 * 91 / 97]] * 2)
    np.testing.assert_allclose(found['seen'], expected, rtol=1e-6)


@pytest.mark.parametrize('name', ['segmentor', 'detector'])
def test_segmentors_and_detectors_see_all(written: dict, images: Path, tmp_path: Path, name: str) -> None:
    job.main([*written[name], '--images', str(images / 'odd.png'), '--out', str(tmp_path), '--arrays'])
    found = np.load(tmp_path / 'odd.npz')
    assert found['maps'].shape == (1, 67, 91)
    assert found['maps'].max() == 1
    np.testing.assert_allclose(found['seen'], [[0, 0, 67, 91]])


def test_every_method_and_a_layer(written: dict, images: Path) -> None:
    network = job.read_network(*written['res2net'], layer='layer3')
    assert network.layer == 'backbone.layer3'
    maps = [job.explain(network, None, images / 'odd.png', method=method)[1] for method in METHODS]
    assert len({heat.tobytes() for heat in maps}) == len(METHODS)


def test_titles_say_what_is_drawn(written: dict, images: Path) -> None:
    network = job.read_network(written['res2net'][0], None)
    with torch.no_grad():
        network.model.head.fc.weight.copy_(-network.model.head.fc.weight.abs())  # nothing supports any class
    result = job.explain(network, 1, images / 'odd.png')
    assert not result[1].any()
    title = ' '.join(job.title_of(network, *result))
    for part in ('random weights', 'crane', 'frame', 'empty'):
        assert part in title


def test_the_frame_is_what_the_network_gets(written: dict, images: Path) -> None:
    network = job.read_network(*written['res2net'])
    image, heat, explanation = job.explain(network, 1, images / 'odd.png')
    plain = np.full((670, 910, 3), 200, np.uint8)
    panel = job._panel(plain, image, heat, explanation)
    window = image.visible
    rows, columns = (panel == 70).all((1, 2)), (panel == 70).all((0, 2))  # 200 * 0.35
    assert rows[: int(window.top * 10) - 9].all()
    assert not rows[int(window.top * 10) + 9]
    assert columns[: int(window.left * 10) - 9].all()
    assert not columns[int(window.left * 10) + 9]


@pytest.mark.parametrize(
    ('flags', 'named'),
    [
        (['--class', 'tensh'], 'tench'),
        (['--class', '3'], '0 to 2'),
        (['--layer', 'layer9'], r'backbone\.layer'),
        (['--layer', 'head.fc'], r'head\.fc'),
        (['--layer', 'backbone'], 'backbone'),
        (['--random'], '--random'),
        (['--against', 'a', 'b', 'c'], '--against a b c'),
        (['--against', 'resnet50_14w_8s'], 'resnet50_14w_8s'),
        (['--whole-map'], '--whole-map'),
        (['--device', 'nonsense'], '--device nonsense'),
        (['--device', 'cuda:77'], '--device cuda:77'),
        (['--out', '/proc/x'], '--out'),
    ],
)
def test_mistakes(written: dict, images: Path, flags: list[str], named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        job.main([*written['res2net'], '--images', str(images / 'odd.png'), '--out', str(tmp_path), *flags])
    assert not list(tmp_path.rglob('*.png'))


def test_a_class_has_to_mean_the_same_in_all_networks(written: dict) -> None:
    networks = [job.read_network(*written[name]) for name in ('res2net', 'resnet')]
    assert job.labels_of('tench', networks) == [0, 1]
    for text in ('1', 'stork'):  # another class in each, and one that the first lacks
        with pytest.raises(UserError, match=f'--class {text}'):
            job.labels_of(text, networks)


def test_broken_images_are_skipped(written: dict, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    broken = tmp_path / 'broken.png'
    broken.write_bytes((images / 'odd.png').read_bytes()[:300])
    flags = ['--images', str(broken), str(images / 'odd.png'), '--out', str(tmp_path / 'out')]
    assert job.main([*written['res2net'], *flags]) == 1
    assert 'broken.png' in capsys.readouterr().err
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 1
    for path in (broken, tmp_path / 'absent.png'):
        with pytest.raises(UserError, match=path.name):
            job.main([*written['res2net'], '--images', str(path), '--out', str(tmp_path / 'out')])

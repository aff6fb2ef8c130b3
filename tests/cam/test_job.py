"""The command: pictures and arrays of real runs, flags that do not fit, files that are no images."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net.cam import job
from mmres2net.cam.view import look
from mmres2net.errors import UserError
from tests.cam import models
from tests.support import tiny

pytest.importorskip('mmpretrain')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
OTHER = ('drake', 'tench', 'stork', 'ptarmigan')
RESNET = dict(type='mmpretrain.ResNet', depth=18, out_indices=(3,))
CONFIGS = {
    'res2net': models.classifier(),
    'resnet': models.classifier(RESNET, OTHER, 512),
    'segmentor': models.segmentor(),
    'detector': models.detector(),
}


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    folder = tmp_path_factory.mktemp('models')
    return {name: tiny.write_model(folder, name, config) for name, config in CONFIGS.items()}


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('images')
    for name, mode in (('odd', 'RGB'), ('grey', 'L'), ('alpha', 'RGBA')):
        models.write_image(folder / f'{name}.png', 67, 91, mode)
    return folder


def test_two_networks_side_by_side(written: dict, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ['--against', *written['res2net'], '--out', str(tmp_path / 'out'), '--arrays']
    assert job.main([*written['resnet'], '--images', str(images), *flags]) == 0
    said = capsys.readouterr().out
    assert f'3 pictures and arrays: {tmp_path / "out"}' in said
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {f'{stem}{suffix}' for stem in ('odd', 'grey', 'alpha') for suffix in ('.png', '.npz')}
    with Image.open(tmp_path / 'out' / 'odd.png') as picture:
        assert picture.width > 3 * 250
    found = np.load(tmp_path / 'out' / 'odd.npz')
    assert found['maps'].shape == (2, 67, 91)
    assert found['maps'].dtype == np.float32
    assert found['maps'].min() >= 0
    assert found['maps'].max() <= 1
    assert found['layers'].tolist() == ['backbone.layer4', 'backbone.layer4']
    assert found['configs'].tolist() == ['resnet', 'res2net']
    assert found['weights'].tolist() == ['resnet.pth', 'res2net.pth']
    assert found['method'] == 'gradcam'
    first, second = (int(label) for label in found['labels'])
    assert found['classes'].tolist() == [OTHER[first], models.CLASSES[second]]
    assert (found['scores'] > 1 / 4).all()
    # 67 x 91 becomes 72 x 97 (97.8 cut); of that the centre of 64 x 64, from row 4 and column 16 on.
    expected = np.array([4 * 67 / 72, 16 * 91 / 97, 68 * 67 / 72, 80 * 91 / 97])
    np.testing.assert_allclose(found['seen'], [expected, expected], rtol=1e-12)
    assert not found['maps'][:, :3].any()


def test_a_class_by_name_has_its_own_number_in_each(written: dict, images: Path, tmp_path: Path) -> None:
    flags = ['--class', 'Drake', '--images', str(images / 'odd.png'), '--out', str(tmp_path), '--arrays']
    job.main([*written['resnet'], '--against', *written['res2net'], *flags])
    found = np.load(tmp_path / 'odd.npz')
    assert found['labels'].tolist() == [0, 2]
    assert found['classes'].tolist() == ['drake', 'drake']


@pytest.mark.parametrize('name', ['segmentor', 'detector'])
def test_other_tasks(written: dict, name: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    job.main([*written[name], '--images', str(images / 'odd.png'), '--out', str(tmp_path), '--arrays'])
    said = capsys.readouterr().out
    assert re.search('over its .* of the pixels' if name == 'segmentor' else 'the best box', said)
    found = np.load(tmp_path / 'odd.npz')
    assert found['maps'].shape == (1, 67, 91)
    assert found['maps'].max() == 1
    np.testing.assert_allclose(found['seen'], [[0, 0, 67, 91]])


def test_every_method_and_a_layer(written: dict, images: Path, tmp_path: Path) -> None:
    maps = {}
    for method in job.METHODS:
        flags = ['--method', method, '--layer', 'layer3', '--arrays', '--out', str(tmp_path / method)]
        job.main([*written['res2net'], '--images', str(images / 'odd.png'), *flags])
        found = np.load(tmp_path / method / 'odd.npz')
        assert (str(found['method']), found['layers'][0]) == (method, 'backbone.layer3')
        maps[method] = found['maps'][0]
    assert len({values.tobytes() for values in maps.values()}) == len(job.METHODS)


def test_grey_and_transparent_files_have_maps_of_their_pixels(written: dict, images: Path) -> None:
    network = job.read_network(*written['res2net'])
    for name in ('grey', 'alpha'):
        view, strength, _ = job.explain(network, images / f'{name}.png', 0)
        assert view.image.shape == (*strength.shape, 3)
    grey = look(network.cfg, network.model, images / 'grey.png')
    assert (grey.image == grey.image[..., :1]).all()


def test_an_empty_map_is_said(written: dict, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier whose every weight is negative: nothing speaks for any class."""
    import torch

    network = job.read_network(*written['res2net'])
    with torch.no_grad():
        network.model.head.fc.weight.copy_(-network.model.head.fc.weight.abs())
    result = job.explain(network, images / 'odd.png', 1)
    assert result[1].dtype == np.float32
    assert not result[1].any()
    titles = []
    monkeypatch.setattr(job, 'row_of', lambda image, panels, footer: titles.append(panels))
    job.draw(images / 'odd.png', [network], [result], 'gradcam')
    assert 'nothing here speaks for the class: the map is empty' in titles[0][1].title
    assert 'framed: what the network sees' in titles[0][1].title


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--class', 'tensh'], 'res2net has no such class; close matches: tench'),
        (['--class', '3'], '--class 3: res2net has the classes 0 to 2'),
        (['--layer', 'layer9'], '--layer layer9: the model has no such layer; close matches: backbone.layer'),
        (['--layer', 'head.fc'], r'odd.png: the layer head.fc gives \(1, 3\), not one map'),
        (['--layer', 'backbone'], 'the layer backbone gives a tuple'),
        (['--random'], 'each has one: leave it out'),
        (['--against', 'a', 'b', 'c'], '--against a b c: give a config and its checkpoint'),
        (['--against', 'resnet50_14w_8s'], 'resnet50_14w_8s: name a checkpoint behind the config'),
        (['--whole-map'], '--whole-map is for segmentors'),
        (['--device', 'nonsense'], '--device nonsense'),
    ],
)
def test_mistakes(written: dict, images: Path, flags: list[str], message: str, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    with pytest.raises(UserError, match=message):
        job.main([*written['res2net'], '--images', str(images / 'odd.png'), '--out', str(out), *flags])
    assert not list(tmp_path.rglob('*.png'))


def test_a_number_that_means_two_classes_is_refused(written: dict, images: Path, tmp_path: Path) -> None:
    flags = ['--images', str(images), '--class', '1', '--out', str(tmp_path)]
    with pytest.raises(UserError, match='--class 1 is crane in one network and tench in another: give the name'):
        job.main([*written['res2net'], '--against', *written['resnet'], *flags])


def test_a_class_that_one_network_lacks_is_refused(written: dict, images: Path, tmp_path: Path) -> None:
    flags = ['--images', str(images), '--class', 'stork', '--out', str(tmp_path)]
    with pytest.raises(UserError, match='--class stork: res2net has no such class'):
        job.main([*written['resnet'], '--against', *written['res2net'], *flags])


@pytest.mark.parametrize('content', [b'', b'no image', b'\x89PNG\r\n\x1a\n' + bytes(20)])
def test_files_that_are_no_images(written: dict, content: bytes, tmp_path: Path) -> None:
    (tmp_path / 'broken.png').write_bytes(content)
    with pytest.raises(UserError, match=r'broken\.png cannot be read as an image'):
        job.main([*written['res2net'], '--images', str(tmp_path / 'broken.png'), '--out', str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


def test_images_that_are_not_there(written: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'no image absent\.jpg'):
        job.main([*written['res2net'], '--images', 'absent.jpg'])
    with pytest.raises(UserError, match='no image in this folder'):
        job.main([*written['res2net'], '--images', str(tmp_path)])


def test_a_picture_does_not_replace_its_image(written: dict, images: Path) -> None:
    with pytest.raises(UserError, match='the picture would replace'):
        job.main([*written['res2net'], '--images', str(images), '--out', str(images)])


def test_random_weights_are_named_in_the_title(
    written: dict, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    real = job.row_of
    monkeypatch.setattr(job, 'row_of', lambda *args: titles.append(args[1][1].title) or real(*args))
    flags = ['--random', '--images', str(images / 'odd.png'), '--out', str(tmp_path)]
    job.main([written['res2net'][0], *flags])
    assert titles[0][0] == 'res2net, random weights'

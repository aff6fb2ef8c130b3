"""Models with their weights: own checkpoints, published classifiers under the names of other libraries, and faults."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmres2net.cam.source import RANDOM, read_network
from mmres2net.errors import UserError
from mmres2net.export.source import class_names, meta_of
from mmres2net.weights.convert import network_for
from tests.cam import models
from tests.support import tiny

pytest.importorskip('mmpretrain')
CLASSES = tuple(f'class {index}' for index in range(10))
SMALL = dict(type='mmres2net.Res2Net', arch='res2net50_14w_8s', out_indices=(3,))
HOST = dict(type='mmpretrain.ResNet', depth=18, out_indices=(3,))
CHANNELS = {'ResNet': 512, 'Res2NetDLA': 1024}


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return tiny.write_model(tmp_path_factory.mktemp('small'), 'small', models.classifier())


def written(folder: Path, config: dict) -> str:
    Config(config).dump(folder / 'config.py')
    return str(folder / 'config.py')


def test_a_checkpoint_with_its_config(small: tuple[str, str]) -> None:
    network = read_network(*small)
    state = torch.load(small[1], weights_only=True)['state_dict']
    assert all(torch.equal(value, state[name]) for name, value in network.model.state_dict().items())
    assert (network.task.kind, network.task.count, network.layer) == ('classification', 3, 'backbone.layer4')
    assert (network.title, network.weights, network.classes) == ('small', 'small.pth', models.CLASSES)
    assert not network.model.training


def test_random_weights_are_the_same_in_every_run(small: tuple[str, str]) -> None:
    first, second = (read_network(small[0], None) for _ in range(2))
    assert first.weights == RANDOM
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('backbone', [models.BACKBONE, dict(models.BACKBONE, with_cp=True)])
def test_checkpointing_is_left_out(backbone: dict, tmp_path: Path) -> None:
    network = read_network(written(tmp_path, models.classifier(backbone)), None)
    assert not any(getattr(module, 'with_cp', False) for module in network.model.modules())


def published(model: torch.nn.Module, form: str) -> dict[str, torch.Tensor]:
    """Return a classifier's weights as they are published: without prefix, the classifier as fc."""
    state = model.state_dict()
    inner = {name.removeprefix('backbone.'): value for name, value in state.items() if name.startswith('backbone.')}
    if form == 'old':
        inner = {name: value for name, value in inner.items() if not name.endswith('num_batches_tracked')}
    fc = {f'fc.{part}': state[f'head.fc.{part}'] for part in ('weight', 'bias')}
    if form == 'dla':
        fc['fc.weight'] = fc['fc.weight'][:, :, None, None]
        inner = network_for('official', inner, _row(inner))[0]
    return {**inner, **fc}


def _row(state: dict) -> object:
    from mmres2net.weights import recognise

    return recognise(state).row


@pytest.mark.parametrize(
    ('backbone', 'form'),
    [
        (models.BACKBONE, 'new'),
        (models.BACKBONE, 'old'),
        (dict(models.BACKBONE, deep_stem=True, avg_down=True), 'new'),
        (dict(type='mmres2net.Res2NetDLA', arch='res2net_dla60_4s', out_indices=(3,)), 'dla'),
        (HOST, 'new'),
        (HOST, 'old'),
    ],
)
def test_published_weights_bring_their_classifier(backbone: dict, form: str, tmp_path: Path) -> None:
    config = models.classifier(backbone, CLASSES, CHANNELS.get(backbone['type'].rpartition('.')[2], 2048))
    path = written(tmp_path, config)
    model = read_network(path, None).model
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.25)
    torch.save(published(model, form), tmp_path / 'published.pth')
    found = read_network(path, str(tmp_path / 'published.pth')).model.state_dict()
    for name, value in model.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(found[name], value), name


def test_a_published_name_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: tuple[str, str]) -> None:
    """The name of an architecture and an address are no paths."""
    asked = []

    def fetch(name: str) -> Path:
        asked.append(name)
        return Path(small[1])

    monkeypatch.setattr('mmres2net.cam.source.fetch_checkpoint', fetch)
    read_network(small[0], 'torchvision://resnet50')
    assert asked == ['torchvision://resnet50']


def test_published_weights_want_their_pixels(tmp_path: Path) -> None:
    config = models.classifier(SMALL, CLASSES)
    config['model']['data_preprocessor']['to_rgb'] = False
    with pytest.raises(UserError, match='to_rgb'):
        read_network(written(tmp_path, config), 'res2net50_14w_8s')


def test_another_networks_classifier_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, models.classifier(classes=CLASSES))
    other = models.classifier(dict(models.BACKBONE, base_width=16), CLASSES)
    (tmp_path / 'other').mkdir()
    model = read_network(written(tmp_path / 'other', other), None).model
    torch.save(published(model, 'new'), tmp_path / 'published.pth')
    with pytest.raises(UserError, match='does not fit the config'):
        read_network(path, str(tmp_path / 'published.pth'))


def test_a_classifier_of_other_classes_is_refused(tmp_path: Path, small: tuple[str, str]) -> None:
    torch.save(published(read_network(*small).model, 'new'), tmp_path / 'published.pth')
    path = written(tmp_path, models.classifier(classes=CLASSES))
    with pytest.raises(UserError, match=r'head\.fc\.weight: \(3, 2048\) in the checkpoint, \(10, 2048\) in the model'):
        read_network(path, str(tmp_path / 'published.pth'))


def test_classes_that_nobody_knows_or_too_few(tmp_path: Path, small: tuple[str, str]) -> None:
    options = {'test_dataloader.dataset.metainfo': dict(classes=('a', 'b'))}
    assert read_network(*small, options=options).classes == ()
    saved = torch.load(small[1], weights_only=True)
    torch.save({**saved, 'meta': {'dataset_meta': {'classes': ('x', 'y', 'z')}}}, tmp_path / 'own.pth')
    assert read_network(small[0], str(tmp_path / 'own.pth')).classes == ('x', 'y', 'z')


@pytest.mark.parametrize(
    ('scope', 'kind', 'count', 'first'),
    [
        ('mmpretrain', 'ImageNet', 1000, 'tench, Tinca tinca'),
        ('mmdet', 'CocoDataset', 80, 'person'),
        ('mmseg', 'PascalVOCDataset', 21, 'background'),
        ('mmseg', 'mmres2net.SaliencyDataset', 2, 'background'),
        ('mmseg', 'Nonsense', 0, ''),
    ],
)
def test_classes_of_a_data_set_without_names_in_the_config(scope: str, kind: str, count: int, first: str) -> None:
    pytest.importorskip(scope)
    cfg = Config(dict(default_scope=scope, test_dataloader=dict(dataset=dict(type=kind, pipeline=[]))))
    init_default_scope(scope)
    classes = class_names(meta_of({}, cfg))
    assert len(classes) == count
    assert ''.join(classes[:1]) == first


@pytest.mark.parametrize(
    ('checkpoint', 'options', 'message'),
    [
        ('absent.pth', {}, 'no checkpoint at absent.pth'),
        (None, {'layer': 'layr4'}, r'close matches: backbone\.layer4'),
        (None, {'device': 'nonsense'}, '--device nonsense'),
        (None, {'device': 'cuda:77'}, '--device cuda:77.*cpu always works'),
        (None, {'options': {'model.type': 'Nonsense'}}, 'cannot be built'),
        (None, {'everywhere': True}, '--whole-map is for segmentors'),
    ],
)
def test_mistakes(checkpoint: str | None, options: dict, message: str, small: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=message):
        read_network(small[0], checkpoint, **options)


def test_a_config_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='has no model'):
        read_network(written(tmp_path, dict(default_scope='mmpretrain')), None)

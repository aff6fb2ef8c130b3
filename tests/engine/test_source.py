"""Models with their weights: own checkpoints, published classifiers under the names of other libraries, and faults."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmres2net.engine.config import load_config
from mmres2net.engine.source import RANDOM, class_names, metainfo_of, read_source
from mmres2net.errors import UserError
from mmres2net.weights.convert import network_for
from tests.cam import models
from tests.support.exported import RESNET

pytest.importorskip('mmpretrain')
TEN = tuple(f'class {index}' for index in range(10))
CHANNELS = {'ResNet': 512, 'Res2NetDLA': 1024}


def written(folder: Path, config: dict) -> str:
    folder.mkdir(exist_ok=True)
    Config(config).dump(folder / 'config.py')
    return str(folder / 'config.py')


def test_a_checkpoint_with_its_config(tiny_models: dict) -> None:
    source = read_source(*tiny_models['classifier'])
    state = torch.load(tiny_models['classifier'][1], weights_only=True)['state_dict']
    assert all(torch.equal(value, state[name]) for name, value in source.model.state_dict().items())
    assert (source.title, source.weights, source.classes) == ('classifier', 'classifier.pth', models.CLASSES)
    assert not source.model.training


def test_random_weights_are_the_same_in_every_run(tmp_path: Path) -> None:
    path = written(tmp_path, models.classifier(dict(models.BACKBONE, with_cp=True)))
    first, second = (read_source(path, None) for _ in range(2))
    assert first.weights == RANDOM
    assert not any(getattr(module, 'with_cp', False) for module in first.model.modules())
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def published(model: torch.nn.Module, form: str) -> dict[str, torch.Tensor]:
    """Return a classifier's weights as they are published: without prefix, the classifier as fc."""
    state = model.state_dict()
    inner = {name.removeprefix('backbone.'): value for name, value in state.items() if name.startswith('backbone.')}
    if form == 'old':
        inner = {name: value for name, value in inner.items() if not name.endswith('num_batches_tracked')}
    fc = {f'fc.{part}': state[f'head.fc.{part}'] for part in ('weight', 'bias')}
    if form == 'dla':
        fc['fc.weight'] = fc['fc.weight'][:, :, None, None]
        inner = network_for('official', inner, deep_stem=False)[0]
    return {**inner, **fc}


@pytest.mark.parametrize(('backbone', 'form'), [
    (models.BACKBONE, 'new'), (models.BACKBONE, 'old'), (dict(models.BACKBONE, deep_stem=True, avg_down=True), 'new'),
    (dict(type='mmres2net.Res2NetDLA', arch='res2net_dla60_4s', out_indices=(3,)), 'dla'), (RESNET, 'old'),
])  # fmt: skip
def test_published_weights_bring_their_classifier(backbone: dict, form: str, tmp_path: Path) -> None:
    channels = CHANNELS.get(backbone['type'].rpartition('.')[2], 2048)
    path = written(tmp_path, models.classifier(backbone, TEN, channels))
    model = read_source(path, None).model
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.25)
    torch.save(published(model, form), tmp_path / 'published.pth')
    found = read_source(path, str(tmp_path / 'published.pth')).model.state_dict()
    for name, value in model.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(found[name], value), name


def test_published_weights_of_other_networks_are_refused(tmp_path: Path, tiny_models: dict) -> None:
    path = written(tmp_path / 'ten', models.classifier(classes=TEN))
    other = written(tmp_path / 'other', models.classifier(dict(models.BACKBONE, base_width=16), TEN))
    for source in (read_source(*tiny_models['classifier']), read_source(other, None)):
        torch.save(published(source.model, 'new'), tmp_path / 'published.pth')
        with pytest.raises(UserError, match=r'published\.pth'):
            read_source(path, str(tmp_path / 'published.pth'))


def test_published_weights_want_their_pixels(tmp_path: Path) -> None:
    config = models.classifier(dict(type='mmres2net.Res2Net', arch='res2net50_14w_8s', out_indices=(3,)), TEN)
    config['model']['data_preprocessor']['to_rgb'] = False
    with pytest.raises(UserError, match='to_rgb'):
        read_source(written(tmp_path, config), 'res2net50_14w_8s')


CLASSES = {
    'deeplabv3plus_r2n50.py': ('background', 21),  # mmseg's class of the data set knows them
    'imagenet/resnet50.py': ('tench', 1000),
    'mask_rcnn_r2n50.py': ('person', 80),
    'dss_r2n50.py': ('background', 2),  # four data sets in one
    'demo/faster_rcnn_r2n50.py': ('disc', 6),  # the config itself
}


@pytest.mark.parametrize('config', CLASSES)
def test_class_names_are_those_of_the_data_set(config: str) -> None:
    classes = class_names(metainfo_of({}, load_config(config)))
    assert (classes[0].split(',')[0], len(classes)) == CLASSES[config]


def test_class_names_of_the_checkpoint_win_or_are_refused_at_once() -> None:
    content = {'meta': {'dataset_meta': {'classes': ('cat',)}}}
    assert class_names(metainfo_of(content, load_config('mask_rcnn_r2n50.py'))) == ('cat',)
    assert class_names({}) == ()
    bomb: list = ['name'] * 10
    for _ in range(9):  # 10^10 names to print
        bomb = [bomb] * 10
    for classes in (bomb, [7], {'a': 1}, ['x' * 10_000]):
        with pytest.raises(UserError):
            class_names({'classes': classes})

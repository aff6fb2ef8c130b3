"""What is explained of each kind of model, against own arithmetic and its predictions; names of classes and layers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.cam.core import activation_map
from mmres2net.cam.image import PreprocessedImage, preprocess_image
from mmres2net.cam.tasks import Network, label_of, last_stage, layer_named, network_of, task_of
from mmres2net.engine.source import read_source
from mmres2net.errors import UserError
from mmres2net.models import Res2Net, Res2NetDLA
from tests.cam import models

for package in ('mmpretrain', 'mmdet', 'mmseg'):
    pytest.importorskip(package)
NAMES = ('classifier', 'segmentor', 'saliency', 'detector', 'agnostic', 'c4')


@pytest.fixture(scope='module')
def networks(tiny_models: dict) -> dict[str, Network]:
    return {name: network_of(read_source(*tiny_models[name])) for name in NAMES}


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_image(tmp_path_factory.mktemp('images') / 'odd.png', 67, 91)


def map_of(network: Network, view: PreprocessedImage, label: int | None) -> tuple[np.ndarray, object]:
    return activation_map(network.model, network.layer, lambda: network.task.explain(view, label))


def map_by_hand(activations: Tensor, score: Tensor) -> np.ndarray:
    gradient = torch.autograd.grad(score, activations, retain_graph=True)[0]
    return (gradient.mean((2, 3), keepdim=True) * activations).sum(1)[0].relu().detach().numpy()


def leaves(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (*[feature.detach() for feature in features[:-1]], features[-1].detach().requires_grad_())


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Compare two maps; return whether they say something: with such weights half of all classes have empty ones."""
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * max(expected.max(), 1e-9))
    return bool(expected.max() > 0)


@pytest.mark.parametrize('label', [None, 1, 2])
def test_classifier(networks: dict, image: Path, label: int | None) -> None:
    """The library keeps the precision, and the map of a class is its row of the classifier: Zhou et al.'s CAM."""
    network = networks['classifier']
    model, view = network.model.double(), preprocess_image(network.cfg, network.model, image)
    inputs = view.inputs.double()
    try:
        found, explanation = map_of(network, replace(view, inputs=inputs), label)
        with torch.no_grad():
            scores, last = model.predict(inputs)[0].pred_score, model.backbone(inputs)[-1][0]
            row = model.head.fc.weight[explanation.label]
            expected = torch.einsum('c,chw->hw', row, last).relu().numpy() / last[0].numel()
    finally:
        model.float()
    assert explanation.label == (int(scores.argmax()) if label is None else label)
    assert explanation.score == pytest.approx(float(scores[explanation.label]), abs=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_segmentor(networks: dict, image: Path) -> None:
    network = networks['segmentor']
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    assert (view.inputs.shape[2:], view.content) == ((97, 97), (71, 96))
    features = leaves(model.backbone(view.inputs))
    logits = functional.interpolate(
        model.decode_head.forward(features), size=(97, 97), mode='bilinear', align_corners=True
    )[0, :, :71, :96]
    predicted, said = logits.argmax(0), []
    for label in (None, 0, 1, 2):
        found, explanation = map_of(network, view, label)
        assert explanation.label == (int(predicted.flatten().bincount().argmax()) if label is None else label)
        mask = predicted == explanation.label
        assert ('nowhere' in explanation.text) == (not mask.any())
        if not mask.any():
            mask = torch.ones_like(mask)
        said.append(close(found, map_by_hand(features[-1], logits[explanation.label][mask].sum())))
    assert any(said[1:])


@pytest.mark.parametrize('label', [None, 0, 1])
def test_salient_objects(networks: dict, image: Path, label: int | None) -> None:
    network = networks['saliency']
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    assert (network.layer, network.classes) == ('backbone.backbone.layer4', ('background', 'salient'))
    assert (tuple(view.inputs.shape[2:]), view.content) == ((80, 96), (67, 91))
    features = leaves(model.backbone(view.inputs))
    logits = model.decode_head.predict(features, [view.sample.metainfo], None)[0, 0, :67, :91]
    model.decode_head.threshold = float(logits.detach().sigmoid().median())
    network = replace(network, task=task_of(model, network.classes))
    found, explanation = map_of(network, view, label)
    mask = logits.sigmoid() > model.decode_head.threshold
    assert explanation.label == (int(mask.any()) if label is None else label)
    mask, sign = (mask, 1) if explanation.label else (~mask, -1)
    assert explanation.score == pytest.approx(float((sign * logits).sigmoid()[mask].mean()), abs=1e-6)
    close(found, map_by_hand(features[-1], sign * logits[mask].sum()))


@pytest.mark.parametrize('name', ['detector', 'agnostic', 'c4'])
def test_detectors_explain_their_surest_detection(networks: dict, image: Path, name: str) -> None:
    network = networks[name]
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    found, explanation = map_of(network, view, None)
    with torch.no_grad():
        best = model.predict(view.inputs, [view.sample])[0].pred_instances[0]
    assert explanation.label == int(best.labels)
    assert explanation.score == pytest.approx(float(best.scores), abs=1e-5)
    np.testing.assert_allclose(explanation.box, best.bboxes[0].numpy(), atol=1e-3)
    assert found.any()


@pytest.mark.parametrize(('name', 'labels'), [('detector', (0, 1, 2)), ('c4', (2,))])
def test_a_detector_by_hand(networks: dict, image: Path, name: str, labels: tuple[int, ...]) -> None:
    network = networks[name]
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    features = leaves(model.backbone(view.inputs))
    pyramid = model.neck(features) if model.with_neck else features
    with torch.no_grad():
        proposals = model.rpn_head.predict(pyramid, [view.sample], rescale=False)[0].bboxes
    rois = functional.pad(proposals, (1, 0))
    logits = model.roi_head._bbox_forward(pyramid, rois)['cls_score']
    said = []
    for label in labels:
        found, explanation = map_of(network, view, label)
        best = int(logits.softmax(1)[:, label].argmax())
        assert explanation.label == label
        said.append(close(found, map_by_hand(features[-1], logits[best, label])))
    assert any(said)


def test_scores_below_the_threshold_and_no_regions(networks, image, monkeypatch) -> None:
    network = networks['detector']
    view = preprocess_image(network.cfg, network.model, image)
    monkeypatch.setattr(network.model.test_cfg.rcnn, 'score_thr', 0.999)
    assert '0.999' in map_of(network, view, 0)[1].text
    monkeypatch.setattr(network.model.rpn_head.test_cfg, 'min_bbox_size', 1000)
    with pytest.raises(UserError, match='region'):
        map_of(network, view, None)


def test_models_without_a_single_score(networks: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match='Identity'):
        task_of(nn.Identity(), ())
    monkeypatch.setattr(networks['segmentor'].model.test_cfg, 'mode', 'slide')
    with pytest.raises(UserError, match='mode=whole'):
        task_of(networks['segmentor'].model, ())


CLASS_NAMES = ('tench, Tinca tinca', 'great white shark, white shark', 'crane', 'crane', '7')
NO_CLASSES = {'tensh': 'tench', 'shark': 'white shark', 'crane': '2, 3', '5': '0 to 4', '-1': '-1'}
LABELS = {'tench': 0, 'Tinca Tinca': 0, 'tench, tinca tinca': 0, 'white shark': 1, '3': 3, '7': 4}  # name before number


def test_classes_by_name_or_number() -> None:
    network = SimpleNamespace(classes=CLASS_NAMES, title='resnet50', task=SimpleNamespace(count=5))
    assert {text: label_of(text, network) for text in LABELS} == LABELS
    for text, named in NO_CLASSES.items():
        with pytest.raises(UserError, match=named):
            label_of(text, network)
    network.classes = ()
    with pytest.raises(UserError):
        label_of('tench', network)


class Model(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.data_preprocessor, self.backbone, self.head = nn.Identity(), backbone, nn.Linear(1, 1)


def test_layers_by_name_and_the_last_stage() -> None:
    model = Model(Res2Net(depths=(1, 1, 1, 1)))
    assert layer_named(model, 'backbone.layer3.0.conv3') == 'backbone.layer3.0.conv3'
    assert layer_named(model, 'layer4') == 'backbone.layer4'
    for text, named in (('layr4', r'layr4.*backbone\.layer4'), ('q', r'backbone\.')):
        with pytest.raises(UserError, match=named):
            layer_named(model, text)
    assert last_stage(Model(Res2Net(depths=(1, 1, 1, 1)))) == 'backbone.layer4'
    assert last_stage(Model(Res2Net(depths=(1, 1, 1, 1), out_indices=(0, 2)))) == 'backbone.layer3'
    assert last_stage(Model(Res2NetDLA('res2net_dla60_4s'))) == 'backbone.level5'
    with pytest.raises(UserError, match='Sequential'):
        last_stage(Model(nn.Sequential(nn.ReLU())))

"""The score that is explained, of each kind of model: against own arithmetic and the host's own predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.cam.core import activation_map
from mmres2net.cam.image import PreprocessedImage, preprocess_image
from mmres2net.cam.source import Network
from mmres2net.cam.tasks import _of_map, task_of
from mmres2net.errors import UserError
from tests.cam import models
from tests.support import tiny

pytest.importorskip('mmpretrain')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
CONFIGS = {
    'classifier': models.classifier(),
    'segmentor': tiny.segmentor(),
    'saliency': models.saliency(),
    'fpn': tiny.detector(),
    'agnostic': tiny.detector(agnostic=True, masks=False),
    'c4': tiny.c4_detector(),
}


@pytest.fixture(scope='module')
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    folder = tmp_path_factory.mktemp('networks')
    return {name: models.network(folder, name, config) for name, config in CONFIGS.items()}


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_image(tmp_path_factory.mktemp('images') / 'odd.png', 67, 91)


def map_of(network: Network, view: PreprocessedImage, label: int | None) -> tuple[np.ndarray, object]:
    return activation_map(network.model, network.layer, lambda: network.task.explain(view, label))


def channels_weighted(activations: Tensor, score: Tensor) -> np.ndarray:
    """Return the map of Grad-CAM's equations 1 and 2."""
    return channels_summed(activations, torch.autograd.grad(score, activations)[0])


def channels_summed(activations: Tensor, gradient: Tensor) -> np.ndarray:
    return (gradient.mean((2, 3), keepdim=True) * activations).sum(1)[0].relu().detach().numpy()


def leaves(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (*[feature.detach() for feature in features[:-1]], features[-1].detach().requires_grad_())


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Compare two maps; return whether they say something: with such weights half of all classes have empty ones."""
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * max(expected.max(), 1e-9))
    return bool(expected.max() > 0)


@pytest.mark.parametrize('label', [None, 0, 1, 2])
def test_classifier(networks: dict, image: Path, label: int | None) -> None:
    network = networks['classifier']
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    found, explanation = map_of(network, view, label)
    with torch.no_grad():
        features = model.backbone(view.inputs)
        scores = model.predict(view.inputs)[0].pred_score
    assert explanation.label == (int(scores.argmax()) if label is None else label)
    assert explanation.score == pytest.approx(float(scores[explanation.label]), abs=1e-6)
    (last,) = leaves(features)
    weight, bias = model.head.fc.weight, model.head.fc.bias
    expected = channels_weighted(last, (last.mean((2, 3)) @ weight.T + bias)[0, explanation.label])
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_classifier_in_float64(networks: dict, image: Path) -> None:
    """The library keeps the precision, and the map of a class is its row of the classifier: Zhou et al.'s CAM."""
    network = networks['classifier']
    view = preprocess_image(network.cfg, network.model, image)
    model = network.model.double()
    try:
        found, explanation = map_of(network, replace(view, inputs=view.inputs.double()), 1)
        with torch.no_grad():
            last = model.backbone(view.inputs.double())[-1][0]
            row = model.head.fc.weight[1]
            expected = torch.einsum('c,chw->hw', row, last).relu().numpy() / last[0].numel()
    finally:
        model.float()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    assert explanation.label == 1


@pytest.mark.parametrize('all_pixels', [False, True])
def test_segmentor(networks: dict, image: Path, all_pixels: bool) -> None:
    said = [check_segmentor(networks['segmentor'], image, label, all_pixels) for label in (None, 0, 1, 2)]
    assert any(said[1:])


def check_segmentor(network: Network, image: Path, label: int | None, all_pixels: bool) -> bool:
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    network = replace(network, task=task_of(model, network.classes, all_pixels=all_pixels))
    found, explanation = map_of(network, view, label)
    height, width = view.content
    assert (view.inputs.shape[2:], view.content) == ((97, 97), (71, 96))
    features = leaves(model.backbone(view.inputs))
    logits = model.decode_head.forward(features)
    logits = functional.interpolate(logits, size=(97, 97), mode='bilinear', align_corners=True)[0, :, :height, :width]
    predicted = logits.argmax(0)
    if label is None:
        assert explanation.label == int(torch.bincount(predicted.flatten()).argmax())
    mask = predicted == explanation.label
    nowhere = not mask.any()
    if all_pixels or nowhere:
        mask = torch.ones_like(mask)
    assert ('nowhere' in explanation.text) == nowhere
    np.testing.assert_array_equal(explanation.mask, mask.numpy())
    return close(found, channels_weighted(features[-1], logits[explanation.label][mask].sum()))


@pytest.mark.parametrize('label', [None, 0])
def test_salient_objects(networks: dict, image: Path, label: int | None) -> None:
    network = networks['saliency']
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    assert (network.layer, network.classes) == ('backbone.backbone.layer4', ('background', 'salient'))
    assert (tuple(view.inputs.shape[2:]), view.content) == ((80, 96), (67, 91))
    found, explanation = map_of(network, view, label)
    features = leaves(model.backbone(view.inputs))
    logits = model.decode_head.predict(features, [view.sample.metainfo], None)[0, 0, :67, :91]
    mask = logits.sigmoid() > 0.5
    assert explanation.label == (int(mask.any()) if label is None else label)
    mask, sign = (mask, 1) if explanation.label else (~mask, -1)
    np.testing.assert_array_equal(explanation.mask, mask.numpy())
    close(found, channels_weighted(features[-1], sign * logits[mask].sum()))


def test_a_background_is_not_chosen_while_there_is_another() -> None:
    logits = torch.zeros(3, 4, 5)
    logits[0] += 1
    logits[2, 0, :2] = 5
    options = dict(threshold=None, label=None, all_pixels=False)
    assert _of_map(logits, has_background=True, **options)[1].label == 2
    assert _of_map(logits, has_background=False, **options)[1].label == 0
    assert _of_map(logits - 9 * (torch.arange(3) == 2)[:, None, None], has_background=True, **options)[1].label == 0


@pytest.mark.parametrize(('label', 'sign'), [(None, 1), (1, 1), (0, -1)])
def test_one_logit_a_pixel(label: int | None, sign: int) -> None:
    logits = torch.linspace(-2, 2, 20).reshape(1, 4, 5)
    score, found = _of_map(logits, 0.3, label, has_background=True, all_pixels=False)
    mask = logits[0].sigmoid() > 0.3
    mask = mask if sign > 0 else ~mask
    assert found.label == (0 if label == 0 else 1)
    np.testing.assert_array_equal(found.mask, mask.numpy())
    assert float(score) == pytest.approx(sign * float(logits[0][mask].sum()))
    assert found.score == pytest.approx(float((sign * logits[0]).sigmoid()[mask].mean()))


@pytest.mark.parametrize('name', ['fpn', 'agnostic', 'c4'])
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


@pytest.mark.parametrize(('name', 'labels'), [('fpn', (0, 1, 2)), ('c4', (2,))])
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
        gradient = torch.autograd.grad(logits[best, label], features[-1], retain_graph=True)[0]
        said.append(close(found, channels_summed(features[-1], gradient)))
    assert any(said)


def test_a_score_below_the_threshold_is_said(networks: dict, image: Path) -> None:
    network = networks['fpn']
    model, view = network.model, preprocess_image(network.cfg, network.model, image)
    before = model.test_cfg.rcnn.score_thr
    model.test_cfg.rcnn.score_thr = 0.999
    try:
        assert '0.999' in map_of(network, view, 0)[1].text
    finally:
        model.test_cfg.rcnn.score_thr = before


def test_an_image_without_regions_is_an_error(networks: dict, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks['fpn']
    view = preprocess_image(network.cfg, network.model, image)
    monkeypatch.setattr(network.model.rpn_head.test_cfg, 'min_bbox_size', 1000)
    with pytest.raises(UserError, match='region'):
        map_of(network, view, None)


class Other(nn.Module):
    """A model of no kind that is known."""


def test_models_without_a_single_score(networks: dict) -> None:
    with pytest.raises(UserError, match='Other'):
        task_of(Other(), ())
    with pytest.raises(UserError, match='--whole-map'):
        task_of(networks['classifier'].model, (), all_pixels=True)


def test_sliding_windows_are_refused(networks: dict) -> None:
    model = networks['segmentor'].model
    model.test_cfg.mode = 'slide'
    try:
        with pytest.raises(UserError, match='mode=whole'):
            task_of(model, ())
    finally:
        model.test_cfg.mode = 'whole'

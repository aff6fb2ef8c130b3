"""Whole detectors of mmdet give the same losses, gradients and detections on either set of operators."""

from types import ModuleType

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from tests.mmcv_ops.conftest import Use
from tests.support.detection import detection_sample

SIZE = (96, 128)
CONFIGS = [
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco', 'retinanet/retinanet_r50_fpn_1x_coco',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
    'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco', 'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
]  # fmt: skip


def sample(seed: int) -> DetDataSample:
    """Return three objects with boxes, labels and masks."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(3, 2, generator=generator) * 45
    boxes = torch.cat((corner, corner + 10 + torch.rand(3, 2, generator=generator) * 40), 1)
    return detection_sample(boxes, torch.tensor([1, 7, 30]), SIZE)


def detector(config: ConfigDict) -> nn.Module:
    config.backbone.init_cfg = None
    if 'dcn' not in config.backbone:  # deformable blocks exist in the deep networks alone
        config.backbone.depth = 18
        config.neck.in_channels = [64, 128, 256, 512][-len(config.neck.in_channels) :]
    test = config.test_cfg.get('rcnn', config.test_cfg)
    test.update(score_thr=0.0, max_per_img=20)
    torch.manual_seed(0)
    model = MODELS.build(config)
    for name, parameter in model.named_parameters():
        if 'offset' in name or 'cls' in name:  # zero or nearly so at first, which hides what they do
            nn.init.normal_(parameter, std=0.01)
    return model


def outcome(model: nn.Module) -> dict[str, Tensor]:
    """Return the losses, the length of every part's gradient, and the detections on two images."""
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)  # of the samplers
    model.zero_grad()
    model.train()
    losses = model.loss(images, [sample(0), sample(1)])
    total, values = model.parse_losses(losses)
    total.backward()
    parts = {f'gradient of {name}': part for name, part in model.named_children()}
    for name, part in parts.items():
        grads = [p.grad.norm() for p in part.parameters() if p.grad is not None]
        values[name] = torch.stack(grads) if grads else torch.zeros(1)
    model.eval()
    with torch.no_grad():
        for number, result in enumerate(model.predict(images, [sample(0), sample(1)], rescale=False)):
            found = result.pred_instances
            values |= {f'{name} {number}': found[name].float() for name in ('bboxes', 'scores', 'labels')}
            if 'masks' in found:
                values[f'masks {number}'] = found.masks.float().mean((1, 2))
    return values


@pytest.mark.parametrize('name', CONFIGS)
def test_same_as_with_compiled_operators(name: str, use: Use, provided: ModuleType, compiled: ModuleType) -> None:
    init_default_scope('mmdet')
    model = detector(get_config(f'mmdet::{name}.py').model)
    use(provided)
    ours = outcome(model)
    use(compiled)
    theirs = outcome(model)
    assert len(ours['scores 0']) > 0
    for key, value in theirs.items():
        kind, _, number = key.partition(' ')
        rows = is_separate(theirs[f'scores {number}']) if kind in ('bboxes', 'labels', 'masks') else ...
        found, wanted = ours[key][rows], value[rows]
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3, msg=lambda text, key=key: f'{key}: {text}')


def is_separate(scores: Tensor) -> Tensor:
    """Return which of the sorted scores differ from their neighbors by more than rounding, which may swap equals."""
    gaps = torch.cat((torch.ones(1), scores[:-1] - scores[1:], torch.zeros(1))) > 1e-6
    separate = gaps[:-1] & gaps[1:]
    assert separate.any()
    return separate

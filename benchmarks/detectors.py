"""Whole models: a training step, or a test image from pixels to predictions, on generated images."""

from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.structures import InstanceData, PixelData
from torch import nn

from benchmarks.case import Case, MissingError, Outputs
from benchmarks.networks import TYPES, imported, name_in, ours, sped_up, weight
from mmres2net.engine.build import build_model, scope_of
from mmres2net.engine.config import load_config, single_process_norms, without_published_weights
from mmres2net.engine.precision import BFloat16OptimWrapper
from mmres2net.predict.checkpoint import _set_precision

STOCK = {
    'faster_rcnn_r2n50': 'mmdet::faster-rcnn_r50_fpn_1x_coco',
    'mask_rcnn_r2n50': 'mmdet::mask-rcnn_r50_fpn_1x_coco',
}
STOCK_BACKBONE = {'type': 'mmdet.Res2Net', 'scales': 4, 'base_width': 26, 'init_cfg': None}
CONFIGS = (*STOCK, 'deeplabv3plus_r2n50')
OBJECTS = 12
HALF = {'fp16': partial(AmpOptimWrapper, dtype='float16'), 'bf16': BFloat16OptimWrapper}


class WholeModel:
    """A model of a config with seeded weights, the same for all contenders of a kind.

    ``stock`` takes mmdet's own config with mmdet's own Res2Net, ``resnet`` the config's ResNet-50 twin. ``backbone``
    has keys of the backbone that are changed, and ``fast`` speeds the model up as ``train`` and ``test`` do it.
    """

    def __init__(self, case: Case, *, stock=False, resnet=False, backbone: Any = None, fast=False) -> None:
        name = case.config.replace('r2n50', 'r50') if resnet else case.config
        if stock:
            imported('mmdet')
            if case.config not in STOCK:
                raise MissingError(f'OpenMMLab has no {case.config} with a Res2Net of its own')
            name, backbone = STOCK[case.config], STOCK_BACKBONE
        cfg = single_process_norms(without_published_weights(load_config(name)))[0]
        cfg.model.backbone.update(backbone or {}, init_cfg=None)
        torch.manual_seed(0)
        self.case, self.cfg = case, cfg
        self.model = build_model(cfg).to(case.device)
        seed_weights(self.model, stock)
        self.model.train(case.suite == 'step')
        if case.suite == 'image' and case.precision in HALF:
            _set_precision(self.model, case.device, TYPES[case.precision])
        if fast:
            sped_up(self.model)
        with scope_of(cfg):
            self.batch = batch(case, self.model)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9)
        self.wrapper = HALF.get(case.precision, OptimWrapper)(optimizer=optimizer)

    def run(self) -> Any:
        """Do a training step at a learning rate of 0, or predict."""
        with scope_of(self.cfg), torch.set_grad_enabled(self.case.suite == 'step'):
            if self.case.suite == 'step':
                return self.model.train_step(self.batch, self.wrapper)
            return self.model.test_step(self.batch)

    def outputs(self) -> Outputs:
        """Return losses, or all predictions of the first image."""
        torch.manual_seed(1)
        found = self.run()
        if self.case.suite == 'step':
            return {'loss': np.array([float(found['loss'])])}
        if 'pred_instances' in found[0]:
            objects = dict(found[0].pred_instances.items())
            objects['boxes'] = objects.pop('bboxes')
            return {name: torch.as_tensor(value).cpu().numpy() for name, value in objects.items()}
        return {'logits': found[0].seg_logits.data.cpu().numpy()}


def seed_weights(model: nn.Module, stock: bool) -> None:
    """Give equal networks equal weights, and detections scores that differ clearly."""
    with torch.device('meta'):
        twin = ours('mmdet').state_dict() if stock else {}
    names = {name_in('mmdet', 'mmdet', name): name for name in twin}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            own = name.removeprefix('backbone.')
            tensor.copy_(weight(f'backbone.{names.get(own, own)}' if own != name else name, tensor))
            if name.endswith('fc_cls.weight'):
                tensor.mul_(2)
            elif name.endswith(('fc_reg.weight', 'rpn_reg.weight')):
                tensor.mul_(0.1)


def batch(case: Case, model: nn.Module) -> dict[str, Any]:
    """Return what a data loader returns: images of noise, and objects or labels."""
    rng = np.random.default_rng(0)
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), case.size)
    inputs = [torch.from_numpy(rng.integers(0, 256, (3, *case.size), dtype=np.uint8)) for _ in range(case.batch)]
    segments = hasattr(model, 'decode_head')
    samples = [segmentation(case, rng) if segments else detection(case, rng) for _ in inputs]
    for sample in samples:  # images that were not resized
        sample.set_metainfo({**shapes, 'scale_factor': (1.0, 1.0)})
    return {'inputs': inputs, 'data_samples': samples}


def segmentation(case: Case, rng: np.random.Generator) -> Any:
    """Return a sample with the label of each pixel."""
    labels = PixelData(data=torch.from_numpy(rng.integers(0, 2, (1, *case.size))))
    return imported('mmseg.structures').SegDataSample(gt_sem_seg=labels)


def detection(case: Case, rng: np.random.Generator) -> Any:
    """Return a sample with boxes, labels and masks of objects."""
    height, width = case.size
    corner = rng.random((OBJECTS, 2)) * [width * 0.6, height * 0.6]
    boxes = np.hstack([corner, corner + 16 + rng.random((OBJECTS, 2)) * [width * 0.3, height * 0.3]])
    masks = np.zeros((OBJECTS, height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    objects = InstanceData(bboxes=torch.from_numpy(boxes).float(), labels=torch.from_numpy(rng.integers(0, 3, OBJECTS)))
    objects.masks = imported('mmdet.structures.mask').BitmapMasks(masks, height, width)
    return imported('mmdet.structures').DetDataSample(gt_instances=objects)

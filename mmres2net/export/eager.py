"""What the model itself computes of an image, in its host's own code: what an exported file is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmres2net.errors import UserError
from mmres2net.export.pixels import reads_rgb
from mmres2net.export.source import Source

Array = npt.NDArray[Any]
PACKERS = {'mmdet': 'PackDetInputs', 'mmseg': 'PackSegInputs', 'mmpretrain': 'PackInputs'}


def results_of(source: Source, task: str, image: Array) -> dict[str, Array]:
    """Return the results of the eager model on one image.

    Args:
        source: The model as its host builds it.
        task: What was exported.
        image: (H, W, 3) uint8, RGB, as large as the network gets it.

    Returns:
        Of a backbone its maps by number; of a segmentor ``logits`` (K, H, W) and ``classes`` (H, W); of a detector
        ``boxes``, ``scores``, ``labels`` and, if it has them, ``masks`` (n, H, W) bool.
    """
    with torch.no_grad():
        data = packed(source.cfg, image)
        if task == 'backbone':
            return _features(source.model, data, image)
        sample = source.model.test_step(data)[0]
    if task == 'segmentation':
        return {'logits': sample.seg_logits.data.numpy(), 'classes': sample.pred_sem_seg.data[0].numpy()}
    found = sample.pred_instances
    results = {'boxes': found.bboxes, 'scores': found.scores, 'labels': found.labels}
    if 'masks' in found:
        results['masks'] = found.masks
    return {name: value.numpy() for name, value in results.items()}


def _features(model: Any, data: dict[str, Any], image: Array) -> dict[str, Array]:
    x = model.data_preprocessor(data, False)['inputs'][:, :, : image.shape[0], : image.shape[1]]
    features = model.backbone(x)
    features = features if isinstance(features, tuple | list) else (features,)
    return {str(index): feature[0].numpy() for index, feature in enumerate(features)}


def packed(cfg: Config, image: Array) -> dict[str, Any]:
    """Return an image as a batch of one, as the host's test loader gives it.

    Raises:
        UserError: A host that is not known here.
    """
    scope = cfg.get('default_scope')
    if scope not in PACKERS:
        raise UserError(f'default_scope={scope!r}: models of {", ".join(PACKERS)} are exported')
    size = image.shape[:2]
    pixels = image if reads_rgb(cfg) else image[:, :, ::-1]
    content = {'img': np.ascontiguousarray(pixels), 'img_id': 0, 'img_path': '', 'img_shape': size, 'ori_shape': size}
    sample = TRANSFORMS.build({'type': PACKERS[scope]})({**content, 'scale_factor': (1.0, 1.0)})
    return {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}

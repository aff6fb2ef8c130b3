"""Run every backbone, and models of OpenMMLab's libraries, on whatever OpenMMLab is importable; print results as JSON.

Called by ``check.py`` once for each environment; the libraries to use are named on the command line.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

import mmres2net.models as ours
from tests.support import library_models

SIZE, CIFAR_SIZE = 64, 16


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """Return a hash of shapes and bits."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(str(tuple(tensor.shape)).encode() + tensor.detach().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def run_backbone(arch: str) -> str:
    """Build a backbone by MMEngine's registry with seeded weights; run it forward and backward in float64."""
    torch.manual_seed(0)
    family = ours.ARCHS[arch].family
    kind = 'Res2NetDLA' if family == 'dla' else 'Res2Net'
    stages = {} if family == 'cifar' else {'out_indices': (1, 2, 3)}
    net = MODELS.build(dict(type=f'mmres2net.{kind}', arch=arch, **stages)).double().train()
    size = CIFAR_SIZE if family == 'cifar' else SIZE
    image = torch.rand(1, 3, size, size, dtype=torch.float64)
    features = net(image)
    sum(feature.square().mean() for feature in features).backward()
    gradients = [value.grad for value in net.parameters() if value.grad is not None]
    return digest([*features, *gradients])


def run_library(name: str) -> str:
    """Build a library's model with our backbone in its own scope, and run it."""
    importlib.import_module(f'{name}.models')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(name):
        model = importlib.import_module(f'{name}.registry').MODELS.build(ConfigDict(library_models.MODELS[name]))
        model.init_weights()
        assert type(model.backbone) is ours.Res2Net, type(model.backbone)
        model.eval()
        with torch.no_grad():
            out = model(torch.rand(1, 3, SIZE, SIZE), mode='tensor')
    return digest(_flat(out))


def _flat(out: Any) -> Iterable[torch.Tensor]:
    return [out] if isinstance(out, torch.Tensor) else [tensor for part in out for tensor in _flat(part)]


def main(libraries: list[str]) -> None:
    """Print versions, owners and results."""
    MMLogger.get_instance('originals', log_level='ERROR')  # init_weights logs every parameter
    results = {arch: run_backbone(arch) for arch in ours.ARCHS}
    results |= {name: run_library(name) for name in libraries}
    modules = ['torch', 'mmengine', 'mmcv', *libraries]
    owners = importlib.metadata.packages_distributions()
    record = {
        'versions': {name: importlib.import_module(name).__version__ for name in modules},
        'owners': [owner for name in modules for owner in owners.get(name, ())],
        'results': results,
    }
    print(json.dumps(record))


if __name__ == '__main__':
    main(sys.argv[1:])

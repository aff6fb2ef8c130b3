"""Imports and short computations with known results; they run in a child process, which a broken library may crash."""

import importlib
import json
import os
import sys
from collections.abc import Callable


def expect(what: str, value: object, right: object) -> None:
    """Raise a ValueError if a result is not the right one."""
    if value != right:
        raise ValueError(f'{what} gives {value}, but {right} is right')


def operators() -> str:
    """Compare mmcv's NMS and RoIAlign on all devices with results worked out by hand; say who provides them."""
    import torch

    origin = str(getattr(importlib.import_module('mmcv._ext').__spec__, 'origin', ''))
    ops = importlib.import_module('mmcv.ops')
    devices = ['cpu', *(f'cuda:{index}' for index in range(torch.cuda.device_count()))]
    for device in devices:
        # The first box shares 90 of 110 pixels with the second, better one: an IoU of 0.818.
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 1, 10, 11], [30, 0, 40, 10]], device=device)
        kept = ops.nms(boxes, torch.tensor([0.3, 0.9, 0.5], device=device), iou_threshold=0.8)[1]
        expect(f'mmcv.ops.nms on {device}', kept.tolist(), [1, 2])
        # One bin over the plane f(y, x) = 4 y + x gives f at its centre, x 1.5, y 3; pixel centres lie at 0.5, 1.5, ...
        box = torch.tensor([[0.0, 0.5, 1.5, 2.5, 4.5]], device=device)
        pooled = ops.roi_align(torch.arange(24.0).reshape(1, 1, 6, 4).to(device), box, 1, 1.0, 2, 'avg', True)
        expect(f'mmcv.ops.roi_align on {device}', pooled.flatten().tolist(), [4 * 2.5 + 1.0])
    compiled = f'compiled in mmcv (CUDA {ops.get_compiling_cuda_version()})'
    provider = 'provided by mmres2net' if origin.startswith('mmres2net') else compiled
    return f'{provider}; NMS and RoIAlign are right on {", ".join(devices)}'


def gpu() -> str:
    """Check that torch computes right values on each GPU; return their names and the CUDA version it is built for."""
    import torch

    names = []
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        product = torch.full((2, 2), 3.0, device=f'cuda:{index}') @ torch.full((2, 1), 5.0, device=f'cuda:{index}')
        expect(f'a matrix product on {name}', product.flatten().tolist(), [30.0, 30.0])
        names.append(name)
    return f'{", ".join(names) or "none"}; torch is built for CUDA {torch.version.cuda}'


def registry() -> str:
    """Check that ``mmres2net.NAME`` gives the classes of this package, and that no bare name does."""
    from mmengine.registry import MODELS as ROOT_MODELS

    from mmres2net.registry import MODELS

    importlib.import_module('mmres2net.models')
    for name, module in sorted(MODELS.module_dict.items()):
        expect(f"type='mmres2net.{name}'", ROOT_MODELS.get(f'mmres2net.{name}'), module)
        expect(f"type='{name}' in the root registry", ROOT_MODELS.module_dict.get(name), None)
    return f'{len(MODELS.module_dict)} models'


def library(name: str) -> str:
    """Check that an OpenMMLab library gives our class for our name, and none of ours for the bare one."""
    importlib.import_module(f'{name}.models')
    models = importlib.import_module(f'{name}.registry').MODELS
    ours, own = (getattr(models.get(kind), '__module__', name) for kind in ('mmres2net.Res2Net', 'Res2Net'))
    expect(f"type='mmres2net.Res2Net' in {name}", ours.partition('.')[0], 'mmres2net')
    expect(f"type='Res2Net' in {name}", own.partition('.')[0], name)
    return 'imported'


def environment() -> str:
    """Return MMEngine's description of the environment in one line."""
    facts = importlib.import_module('mmengine.utils.dl_utils').collect_env()
    return ', '.join(f'{key}: {value}' for key, value in facts.items() if '\n' not in str(value))


def _imported(name: str) -> Callable[[], str]:
    return lambda: str(getattr(importlib.import_module(name), '__version__', 'imported'))


PROBES: dict[str, Callable[[], str]] = {
    **{name: _imported(name) for name in ('numpy', 'cv2', 'pycocotools.mask', 'torch')},
    **{name: _imported(name) for name in ('torchvision', 'mmengine.runner', 'mmcv.cnn')},
    **{function.__name__: function for function in (operators, gpu, registry)},
    **{name: lambda name=name: library(name) for name in ('mmdet', 'mmseg', 'mmpretrain')},  # type: ignore[misc]
    'environment': environment,
}


def main() -> None:
    """Run the probes named on the command line; print a line of JSON for each: name, what it returned, error."""
    answers = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)  # what libraries print on import must not mix with the answers
    for name in sys.argv[1:]:
        try:
            answer = (name, PROBES[name](), '')
        except BaseException as error:
            answer = (name, '', f'{type(error).__name__}: {error}')
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # a broken library may crash at the normal exit

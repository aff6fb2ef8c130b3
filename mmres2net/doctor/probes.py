"""What the child interpreter does: import one thing after another, and run a little of each on known numbers.

At module level only the standard library is imported; the parent reads the tables.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


def expect(what: str, value: object, truth: object) -> None:
    """Compare what came out with what was worked out by hand.

    Raises:
        ValueError: They differ.
    """
    if value != truth:
        raise ValueError(f'{what} gave {value}, right is {truth}')


def numpy() -> Facts:
    """Import numpy and multiply two matrices."""
    import numpy as np

    expect('a matrix product', np.array([[1, 2], [3, 4]]).dot(np.array([[5], [6]])).tolist(), [[17], [39]])
    return {'version': np.__version__}


def opencv() -> Facts:
    """Write an image as PNG, which loses nothing, and read it."""
    import cv2
    import numpy as np

    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    decoded = cv2.imdecode(cv2.imencode('.png', image)[1], cv2.IMREAD_COLOR)
    expect('cv2.imdecode', np.asarray(decoded).tolist(), image.tolist())
    return {'version': cv2.__version__}


def pycocotools() -> Facts:
    """Encode a mask of known area: the C code goes through numpy's ABI."""
    import numpy as np
    from pycocotools import mask

    pixels = np.zeros((5, 4), np.uint8, order='F')
    pixels[1:4, 2:] = 1
    code = mask.encode(pixels)
    expect('pycocotools.mask.area', int(mask.area(code)), 6)
    expect('pycocotools.mask.decode', mask.decode(code).tolist(), pixels.tolist())
    return {'version': importlib.metadata.version('pycocotools')}


def faster_coco_eval() -> Facts:
    """Measure a mask of known area."""
    import numpy as np

    mask = importlib.import_module('faster_coco_eval.core').mask

    pixels = np.zeros((5, 4), np.uint8, order='F')
    pixels[1:4, 2:] = 1
    expect('faster_coco_eval.core.mask.area', int(mask.area(mask.encode(pixels))), 6)
    return {'version': importlib.metadata.version('faster-coco-eval')}


def torch() -> Facts:
    """Multiply two matrices on the CPU, and on each GPU that is visible."""
    import torch

    left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0], [6.0]])
    expect('a matrix product', (left @ right).tolist(), [[17.0], [39.0]])
    trouble = ''
    try:
        torch.cuda.init()
    except Exception as error:
        trouble = str(error)
    gpus = []
    for index in range(torch.cuda.device_count()):
        gpu = {'name': torch.cuda.get_device_name(index), 'capability': torch.cuda.get_device_capability(index)}
        try:
            value = (left.to(f'cuda:{index}') @ right.to(f'cuda:{index}')).tolist()
            gpu['error'] = '' if value == [[17.0], [39.0]] else f'a matrix product gave {value}'
        except Exception as error:
            gpu['error'] = str(error)
        gpus.append(gpu)
    return {
        'version': torch.__version__,
        'cuda': torch.version.cuda,
        'archs': torch.cuda.get_arch_list(),
        'gpus': gpus,
        'trouble': trouble,
        'threads': torch.get_num_threads(),
    }


def torchvision() -> Facts:
    """Run NMS: two boxes of 100 that share 90 of 110 (IoU 0.818), and one apart."""
    import torch

    module = importlib.import_module('torchvision')
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 1, 10, 11], [30, 0, 40, 10]])
    kept = module.ops.nms(boxes, torch.tensor([0.3, 0.9, 0.5]), 0.8).tolist()
    expect('torchvision.ops.nms', kept, [1, 2])
    return {'version': module.__version__}


def mmengine() -> Facts:
    """Import what every run needs of it."""
    module = importlib.import_module('mmengine')
    for part in ('config', 'registry', 'runner'):
        importlib.import_module(f'mmengine.{part}')
    return {'version': module.__version__}


def mmcv() -> Facts:
    """Import what the backbones need of it."""
    module = importlib.import_module('mmcv')
    importlib.import_module('mmcv.cnn')
    return {'version': module.__version__}


def mmcv_ops() -> Facts:
    """Run the compiled operators that detectors need, on the CPU."""
    importlib.import_module('mmcv._ext')  # by its own error: mmcv.ops hides which symbol is undefined
    ops = importlib.import_module('mmcv.ops')
    _run_ops(ops, 'cpu')
    return {'compiler': ops.get_compiler_version(), 'cuda': ops.get_compiling_cuda_version()}


def mmcv_cuda() -> Facts:
    """Run the same operators on each GPU."""
    import torch

    ops = importlib.import_module('mmcv.ops')
    for index in range(torch.cuda.device_count()):
        _run_ops(ops, f'cuda:{index}')
    return {'gpus': torch.cuda.device_count()}


def _run_ops(ops: Any, device: str) -> None:
    """NMS as above; RoIAlign of one bin over the plane f(y, x) = 4 y + x, which is its value in the bin's middle."""
    import torch

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 1, 10, 11], [30, 0, 40, 10]], device=device)
    scores = torch.tensor([0.3, 0.9, 0.5], device=device)
    expect(f'mmcv.ops.nms on {device}', ops.nms(boxes, scores, iou_threshold=0.8)[1].tolist(), [1, 2])
    plane = torch.arange(24.0).reshape(1, 1, 6, 4).to(device)
    roi = torch.tensor([[0.0, 0.5, 1.5, 2.5, 4.5]], device=device)  # the middle is x 1.5, y 3; pixels lie on halves
    pooled = ops.roi_align(plane, roi, 1, 1.0, 2, 'avg', True)
    expect(f'mmcv.ops.roi_align on {device}', pooled.flatten().tolist(), [4 * 2.5 + 1.0])


def host(name: str) -> Facts:
    """Import a host with its models; say which classes its registry gives for our name and for the bare one."""
    module = importlib.import_module(name)
    importlib.import_module(f'{name}.models')
    models = importlib.import_module(f'{name}.registry').MODELS
    types = {kind: models.get(kind) for kind in ('mmres2net.Res2Net', 'Res2Net')}
    return {'version': module.__version__, 'types': {kind: cls and cls.__module__ for kind, cls in types.items()}}


def registry() -> Facts:
    """Look our classes up from the root of MMEngine's registries, by their full names and by the bare ones."""
    from mmres2net.registry import MODELS, ROOT_MODELS

    importlib.import_module('mmres2net.models')
    ours = sorted(MODELS.module_dict)
    found = {name: ROOT_MODELS.get(f'mmres2net.{name}') for name in ours}
    return {
        'ours': ours,
        'lost': [name for name, cls in found.items() if cls is not MODELS.module_dict[name]],
        'bare': [name for name in ours if name in ROOT_MODELS.module_dict],
    }


def data() -> Facts:
    """Say of each data root of the shipped configs which paths below it are missing, from the current folder."""
    from mmengine.config import Config

    from mmres2net.data.prepare.sources import DATASETS
    from mmres2net.paths import config_dir, list_configs

    groups: dict[str, list[str]] = {}
    for name in list_configs():
        groups.setdefault(_dataset_base(config_dir() / name), []).append(name)
    commands = {entry.config: name for name, entry in DATASETS.items()}
    roots: Facts = {}
    for names in groups.values():  # one config speaks for its group: reading all of them takes too long
        cfg = Config.fromfile(config_dir() / names[0])
        command = next((commands[name] for name in names if name in commands), '')
        for folder, paths in _needed(cfg).items():
            root = roots.setdefault(folder, {'missing': [], 'configs': [], 'prepare': '', 'embedded': False})
            root['missing'] += [path for path in paths if not Path(path).exists() and path not in root['missing']]
            root['configs'] += names
            root['prepare'] = root['prepare'] or command
            root['embedded'] = root['embedded'] or 'embedded_data' in cfg
    return {'roots': roots, 'folder': os.getcwd()}


def _needed(cfg: Any) -> dict[str, list[str]]:
    """Return what a config reads below each of its data roots, sorted."""
    from mmres2net.data.layout import PARTS, datasets_of, needed_paths

    paths: dict[str, set[str]] = {}
    for dataset in (entry for part in PARTS for entry in datasets_of(cfg, part)):
        root = dataset['data_root']
        paths.setdefault(root, set()).update(os.path.join(root, path) for path in needed_paths(dataset))
    return {root: sorted(found) for root, found in paths.items()}


def _dataset_base(config: Path) -> str:
    """Return the file in ``_base_/datasets`` that a config's data come from, found without running any config."""
    for node in ast.parse(config.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            value = ast.literal_eval(node.value)
            bases = [(config.parent / base).resolve() for base in ([value] if isinstance(value, str) else value)]
            direct = [str(base) for base in bases if base.parent.name == 'datasets']
            return next(iter(direct), '') or next((found for base in bases if (found := _dataset_base(base))), '')
    return ''


PROBES: dict[str, Callable[[], Facts]] = {
    'numpy': numpy,
    'opencv': opencv,
    'pycocotools': pycocotools,
    'faster_coco_eval': faster_coco_eval,
    'torch': torch,
    'torchvision': torchvision,
    'mmengine': mmengine,
    'mmcv': mmcv,
    'mmcv_ops': mmcv_ops,
    'mmcv_cuda': mmcv_cuda,
    'registry': registry,
    'mmdet': lambda: host('mmdet'),
    'mmseg': lambda: host('mmseg'),
    'mmpretrain': lambda: host('mmpretrain'),
    'data': data,
}
# What has to work first; a probe is not tried where one of these failed.
NEEDS: dict[str, tuple[str, ...]] = {
    'numpy': (),
    'opencv': ('numpy',),
    'pycocotools': ('numpy',),
    'faster_coco_eval': ('numpy',),
    'torch': (),
    'torchvision': ('torch',),
    'mmengine': ('torch',),
    'mmcv': ('mmengine',),
    'mmcv_ops': ('mmcv',),
    'mmcv_cuda': ('mmcv_ops',),
    'registry': ('mmcv',),
    'mmdet': ('registry', 'mmcv_ops', 'torchvision'),
    'mmseg': ('registry', 'mmcv_ops', 'torchvision'),
    'mmpretrain': ('registry', 'torchvision'),
    'data': ('mmengine',),
}


def main() -> None:
    """Answer the probes named on the command line, a line of JSON each; end with the first that fails."""
    # What packages print on import goes to stderr; stdout has the answers alone.
    answers = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        try:
            entry: Facts = {'probe': name, 'facts': PROBES[name]()}
        except BaseException as error:
            entry = {'probe': name, 'error': f'{type(error).__name__}: {error}'}
        print(json.dumps(entry), file=answers, flush=True)
        if 'error' in entry:
            break
    sys.stdout.flush()
    os._exit(0)  # what happens while a half-broken interpreter ends is nobody's concern

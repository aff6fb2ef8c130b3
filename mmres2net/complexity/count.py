"""Parameters, multiply-adds and activations from shapes alone, and the image size that a config tests on."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mmres2net.data.layout import walk
from mmres2net.engine.build import build_model, scope_of
from mmres2net.errors import UserError, reason_of
from mmres2net.models import Res2Net, Res2NetDLA, find_arch

MASKS = 100  # detections of an image in the COCO protocol; each gets a mask
CLASSES = {'res2net': 1000, 'dla': 1000, 'cifar': 100}  # of the data sets of tables 1 to 4
# The parts that are called in testing; auxiliary heads are for training only.
PARTS = ('backbone', 'neck', 'rpn_head', 'roi_head', 'bbox_head', 'decode_head', 'head', 'auxiliary_head')
CROPS = ('CenterCrop', 'RandomResizedCrop', 'RandomCrop')
REGION_PARTS = ('bbox_roi_extractor', 'bbox_head', 'mask_roi_extractor', 'mask_head', 'shared_head')


@dataclass(frozen=True)
class Complexity:
    """What one image costs in testing.

    Multiply-adds (``macs``) are those of all convolutions and matrix products: of the dense part, of the regions that
    the test settings let through, and of 100 masks. Activations are the elements of the outputs of the same operators,
    which is what pycls and fvcore count.
    """

    size: tuple[int, int]  # height and width in pixels of the image that the network sees
    parameters: int  # of the model
    backbone_parameters: int  # without a pyramid, with the stage that is the head of the regions
    macs: int
    backbone_macs: int  # on the whole image
    activations: int
    backbone_activations: int  # on the whole image


def complexity_of(cfg: Config, size: tuple[int, int]) -> Complexity:
    """Return what one image of ``size`` (height, width) costs; a UserError if the model cannot be counted."""
    model = _build(cfg).eval()
    shared = getattr(getattr(model, 'roi_head', None), 'shared_head', None)
    in_backbone = _parameters(model.backbone) + (_parameters(shared) if shared is not None else 0)
    return _complexity(
        type(model).__name__, size, (_parameters(model), in_backbone), model.backbone,
        lambda features: _work_after(model, features, cfg.model),
    )  # fmt: skip


def parameters_of(cfg: Config) -> int:
    """Return how many parameters the model of ``cfg`` has; no memory is taken."""
    return _parameters(_build(cfg))


def _build(cfg: Config) -> Any:
    """Return the model with shapes and no values."""
    with scope_of(cfg):
        if isinstance((cfg.get('model') or {}).get('type'), str):
            MODELS.get(cfg.model.type)  # imports the library here, where tensors that it makes for itself are real
    try:
        with torch.device('meta'):
            return build_model(cfg)
    except UserError as error:
        if not isinstance(error.__cause__, RuntimeError):  # NotImplementedError is one of them
            raise
        return build_model(cfg).to('meta')  # some constructors read values, such as mmpretrain's ResNets their rates


def complexity_of_arch(name: str, size: tuple[int, int]) -> Complexity:
    """Return what a row of :data:`ARCHS` with a linear classifier costs for one image of ``size`` (height, width).

    The classifier has 1000 classes, or 100 for the 32-pixel networks; the sizes in the paper's table 4 are with 10
    classes. What the official DLA files hold but never run is not counted. An image that is too small for the network
    is a UserError.
    """
    family = find_arch(name).family
    with torch.device('meta'):
        backbone = (Res2NetDLA(name) if family == 'dla' else Res2Net(name)).eval()
        classifier = nn.Linear(backbone.out_channels[-1], CLASSES[family])
    parameters = _parameters(backbone) + _parameters(classifier), _parameters(backbone)
    return _complexity(name, size, parameters, backbone, lambda xs: _count(classifier, xs[-1].mean((2, 3)))[1])


def _complexity(
    name: str,
    size: tuple[int, int],
    parameters: tuple[int, int],
    backbone: nn.Module,
    work_after: Callable[[Any], Counter[str]],
) -> Complexity:
    """Return the cost of a backbone and of what follows it; ``parameters`` are those of all and of the backbone."""
    try:
        with torch.device('meta'):
            features, work = _count(backbone, torch.empty(1, 3, *size))
            total = work + work_after(features)
    except UserError:
        raise
    except Exception as error:  # heads raise whatever they like when they are called alone
        raise UserError(f'cannot count a {name} at {size[0]}x{size[1]}: {reason_of(error)}') from error
    return Complexity(size, *parameters, total['macs'], work['macs'], total['activations'], work['activations'])


def _work_after(model: Any, features: Any, cfg: dict[str, Any]) -> Counter[str]:
    """Return the work of all that follows the backbone."""
    _check_parts(model, PARTS)
    work: Counter[str] = Counter()
    if getattr(model, 'with_neck', False):
        features, work = _count(model.neck, features)
    if getattr(model, 'with_roi_head', False):
        head = model.roi_head
        _check_parts(head, REGION_PARTS)
        work += _count(model.rpn_head, features)[1] + _region_work(head, 'bbox', cfg['test_cfg']['rpn']['max_per_img'])
        return work + _region_work(head, 'mask', MASKS) if head.with_mask else work
    heads = [getattr(model, name, None) for name in ('decode_head', 'bbox_head', 'head')]
    head = next((head for head in heads if head is not None), None)
    if head is None:
        raise UserError(f'cannot count a {type(model).__name__}: it has no head')
    return work + _count(head, features)[1]


def _check_parts(module: nn.Module, known: Sequence[str]) -> None:
    others = [name for name, part in module.named_children() if name not in known and _parameters(part)]
    if others:
        raise UserError(
            f'cannot count a {type(module).__name__}: its parts {", ".join(others)} are unknown; '
            f'known are {", ".join(known)}'
        )


def _region_work(head: Any, kind: str, count: int) -> Counter[str]:
    """Return the work on ``count`` regions, of each stage where a head has several."""
    work: Counter[str] = Counter()
    parts = [getattr(head, f'{kind}_{part}') for part in ('roi_extractor', 'head')]
    stages = [list(part) if isinstance(part, nn.ModuleList) else [part] for part in parts]
    for extractor, branch in zip(*stages, strict=True):
        regions = torch.empty(count, extractor.out_channels, *extractor.roi_layers[0].output_size)
        if head.with_shared_head:
            regions, shared = _count(head.shared_head, regions)
            work += shared
        work += _count(branch, regions)[1]
    return work


class ActivationCounter(TorchDispatchMode):
    """Count the elements of the outputs of the operators whose operations torch counts."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += (out if isinstance(out, Tensor) else out[0]).numel()
        return out


def _count(function: Callable[[Any], Any], x: Any) -> tuple[Any, Counter[str]]:
    """Return ``function(x)``, and its ``macs`` and ``activations``; torch counts a multiply-add as two operations."""
    # The counter of operations takes compound operators apart; the one around it sees the parts.
    with ActivationCounter() as activations, FlopCounterMode(display=False) as counter, torch.no_grad():
        out = function(x)
    return out, Counter(macs=counter.get_total_flops() // 2, activations=activations.total)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def image_size(cfg: Config) -> tuple[int, int]:
    """Return height and width in pixels of the images that a config tests on; landscape where sizes vary.

    For a classifier it is the test crop, else the training crop. Where images keep their sizes, the config may give
    the usual one as ``image_size``, height and width. A UserError says that the config does not tell.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        return _pair(preprocessor['size'])
    loaders = [cfg.get(f'{part}_dataloader') or {} for part in ('test', 'train')]
    sizes = [size for loader in loaders for size in _sizes(loader, cfg.get('default_scope') == 'mmdet')]
    if not sizes and cfg.get('image_size'):
        return _pair(cfg.image_size)
    if not sizes:
        raise UserError('this config does not say on what image size it tests; give it with --size HxW')
    divisor = preprocessor.get('pad_size_divisor') or 1
    height, width = (-(-side // divisor) * divisor for side in sizes[0])
    return height, width


def _sizes(dataloader: Any, is_mmdet: bool) -> Iterator[tuple[int, int]]:
    """Yield (height, width) of the crops of a pipeline, then of its other scales."""
    nodes = [(str(node.get('type')).rpartition('.')[2], node) for _, node in walk(dataloader, '')]
    crops = [(kind, node.get('crop_size') or node.get('scale')) for kind, node in nodes if kind in CROPS]
    scales = [(kind, node.get('scale')) for kind, node in nodes if kind == 'Resize']
    for kind, size in crops + scales:
        if size:  # the crops of mmseg and mmpretrain are height and width
            width_first = kind in ('CenterCrop', 'Resize') or (kind == 'RandomCrop' and is_mmdet)
            yield _pair(size)[::-1] if width_first else _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

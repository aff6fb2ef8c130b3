"""A Res2Net config and its baseline differ in the architecture alone: every other option and default is the same.

The libraries have other defaults than each other and than ours (mmdet's ResNet keeps its norms in evaluation mode, all
three start the last norm of a block at zero), so constructors are compared with their defaults filled in, and built
backbones by what they hold.
"""

import copy
import inspect
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.engine.config import load_config, single_process_norms, without_weights
from tests.configs.pairs import PAIRS

# What is the backbone: in a detector without a pyramid, the last stage is the head of the regions.
BACKBONES = ('backbone.backbone', 'backbone', 'roi_head.shared_head')
ARCHITECTURE = {
    'arch',
    'depth',
    'depths',
    'base_width',
    'scales',
    'cardinality',
    'family',
    'deep_stem',
    'avg_down',
    'se_reduction',
}
WEIGHTS = {'init_cfg', 'pretrained'}
HELPERS = ('weights', 'shared', 'norm_cfg')  # variables of the files, which MMEngine keeps as keys


def take_backbones(cfg: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the backbones out of a config."""
    taken = []
    for path in BACKBONES:
        *parents, last = path.split('.')
        node = cfg['model']
        for parent in parents:
            node = node.get(parent, {})
        if 'type' in node.get(last, {}) and (part := node.pop(last))['type'] != 'mmres2net.WithStem':
            taken.append(part)
        elif path == 'backbone' and last in node:
            node[last] = {key: value for key, value in node[last].items() if key != 'backbone'}
    return taken


def options_of(node: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a backbone's constructor: the config's, else the defaults in its signature."""
    with MODELS.switch_scope_and_registry(None) as registry:  # the default scope's
        kind, options = registry.get(node['type']), {}
    for base in reversed(kind.__mro__):
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            if parameter.default is not parameter.empty:
                options[name] = parameter.default
    options = {**options, **node}
    stages = options.get('num_stages', 4)
    means = {
        'norm_cfg': {'type': 'BN'},
        'strides': (1, 2, 2, 2)[:stages],
        'dilations': (1, 1, 1, 1)[:stages],
        'out_indices': (0, 1, 2, 3)[:stages],
        'contract_dilation': False,
        'stage_with_dcn': (False,) * 4,
    }
    for name, value in means.items():
        if name in options:
            options[name] = value if options[name] is None else options[name]
    options['norm_cfg'] = {'requires_grad': True, **options['norm_cfg']}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def load_pair(pair: tuple[str, str], scratch: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    configs = [load_config(name) for name in pair]
    init_default_scope(configs[0].default_scope)
    ours, theirs = (single_process_norms(without_weights(cfg)[0] if scratch else cfg)[0].to_dict() for cfg in configs)
    return ours, theirs


@pytest.mark.parametrize('scratch', [False, True])
@pytest.mark.parametrize('pair', PAIRS, ids=[name for name, _ in PAIRS])
def test_pair_differs_in_the_architecture_alone(pair: tuple[str, str], scratch: bool) -> None:
    ours, theirs = load_pair(pair, scratch)
    backbones = list(zip(take_backbones(ours), take_backbones(theirs), strict=True))
    assert len(backbones) == (2 if '_c4' in pair[0] else 1)
    for cfg in (ours, theirs):
        for helper in HELPERS:
            cfg.pop(helper, None)
    assert ours == theirs
    for mine, other in backbones:
        mine, other = options_of(mine), options_of(other)
        shared = mine.keys() & other.keys() - ARCHITECTURE - WEIGHTS - {'self', 'type'}
        assert {'norm_eval', 'norm_cfg', 'with_cp'} <= shared
        for key in shared:
            # A network of three stages ignores what the options say of a fourth.
            cut = len(other[key]) if key in ('strides', 'dilations') else None
            assert (mine[key][:cut] if cut else mine[key]) == other[key], key
        if 'style' in other:
            assert (mine['stage_pool'] == 'maskrcnn') == (other['style'] == 'caffe') == (pair[0][-9:] == '_paper.py')
            assert other.get('stem_channels') in (None, 64)
            assert other.get('base_channels', 64) == 64


def stages_of(backbone: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules of each stage, and of what comes before them."""
    stages: dict[str, list[nn.Module]] = {}
    for name, module in backbone.named_modules():
        part = next((part for part in name.split('.') if part.startswith(('layer', 'level'))), '')
        stages.setdefault(part if part not in ('level0', 'level1') else '', []).append(module)
    return stages


def state_of(modules: list[nn.Module]) -> dict[str, set[Any]]:
    """What a stage holds in training, besides its architecture."""
    norms = [m for m in modules if isinstance(m, _BatchNorm)]
    convs = [m for m in modules if isinstance(m, nn.Conv2d)]
    drops = [m for m in modules if 'Drop' in type(m).__name__]
    return {
        'norms': {(type(m), m.eps, m.momentum, m.training, m.weight.requires_grad) for m in norms},
        'trained': {conv.weight.requires_grad for conv in convs},
        'dilations': {max(conv.dilation) for conv in convs if conv.kernel_size == (3, 3)} - {1},
        'drops': {str(m) for m in drops},
    }


def build_pair(pair: tuple[str, str], scratch: bool, device: str = 'cpu') -> list[list[nn.Module]]:
    built = []
    for cfg in load_pair(pair, scratch):
        for node in take_backbones(cfg):
            # mmpretrain's backbones read their drop rates from a tensor, which needs numbers in it.
            with torch.device('cpu' if node['type'].startswith('mmpretrain.') else device):
                backbone = MODELS.build(node)
            backbone.train()
            built.append(backbone)
    half = len(built) // 2
    return [[mine, other] for mine, other in zip(built[:half], built[half:], strict=True)]


@pytest.mark.parametrize('scratch', [False, True])
@pytest.mark.parametrize('pair', PAIRS, ids=[name for name, _ in PAIRS])
def test_pair_trains_the_same_stages(pair: tuple[str, str], scratch: bool) -> None:
    """Frozen stages, norms and their mode, dilations and dropped paths of each stage."""
    for mine, other in build_pair(pair, scratch, 'meta'):
        states = [{name: state_of(stage) for name, stage in stages_of(b).items()} for b in (mine, other)]
        assert states[0] == states[1]


def start_of(backbone: nn.Module) -> dict[str, Any]:
    """How a backbone starts: the values of its norms and biases, and the deviation of its convolutions by fan out."""
    backbone.init_weights()
    values: dict[str, set[float]] = {'last norms': set(), 'norms': set(), 'biases': set()}
    ratios = []
    for name, parameter in backbone.named_parameters():
        if parameter.dim() == 4:
            ratios.append(float(parameter.std()) * (parameter[0, 0].numel() * len(parameter) / 2) ** 0.5)
        else:
            last = name.endswith('bn3.weight')
            group = 'last norms' if last else 'biases' if name.endswith('bias') else 'norms'
            values[group] |= set(parameter.unique().tolist())
    return {**values, 'convolutions': pytest.approx(sum(ratios) / len(ratios), rel=0.02)}


def starts() -> list[tuple[str, str]]:
    """A pair for each way in which two backbones start."""
    pairs: dict[Any, tuple[str, str]] = {}
    for pair in PAIRS:
        nodes = [node for cfg in load_pair(pair, True) for node in take_backbones(cfg)]
        pairs.setdefault(str([(node['type'], node.get('zero_init_residual')) for node in nodes]), pair)
    return list(pairs.values())


@pytest.mark.parametrize('pair', starts(), ids=str)
def test_pair_starts_alike_from_random_weights(pair: tuple[str, str]) -> None:
    for mine, other in build_pair(pair, True):
        first, second = start_of(mine), start_of(other)
        assert first == {**second, 'convolutions': first['convolutions'].expected}


def gradient_norm(cfg: Config) -> float:
    """The norm of all gradients of the first step, on two images of noise with an object in each."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    sample = DetDataSample(metainfo=dict(img_shape=(96, 96), ori_shape=(96, 96), batch_input_shape=(96, 96)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[10.0, 20.0, 70.0, 90.0]]), labels=torch.tensor([3]))
    images = [torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8) for _ in range(2)]
    batch = {'inputs': images, 'data_samples': [copy.deepcopy(sample) for _ in images]}
    losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    losses.backward()
    return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())


def test_first_gradients_of_a_detector_pair_are_of_one_size() -> None:
    """mmdet's ResNet starts the last norm of each block at zero; without that the gradients are far larger."""
    ours, theirs = (without_weights(load_config(f'faster_rcnn_{name}.py'))[0] for name in ('r2n50', 'r50'))
    init_default_scope('mmdet')
    baseline = gradient_norm(theirs)
    assert gradient_norm(ours) == pytest.approx(baseline, rel=0.5)
    ours.model.backbone.zero_init_residual = False
    assert gradient_norm(ours) > 3 * baseline

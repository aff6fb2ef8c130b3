"""A Res2Net config and its baseline differ in the architecture alone: every other option and default is the same.

The libraries and we have other defaults: constructors are compared with theirs filled in, and built ones by stages.
"""

import inspect
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.engine.build import scope_of
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from tests.configs.pairs import PAIRS

# Where backbones are; in a detector without a pyramid, the last stage is the head of the regions.
PLACES = ('backbone.backbone', 'backbone', 'roi_head.shared_head')
ARCHITECTURE = {'arch', 'depth', 'depths', 'base_width', 'scales', 'cardinality', 'family'}
ARCHITECTURE |= {'deep_stem', 'avg_down', 'se_reduction'}
HELPERS = ('weights', 'shared', 'norm_cfg')  # variables of the files, which MMEngine keeps as keys
Backbones = list[dict[str, Any]]


def take_backbones(cfg: dict[str, Any]) -> Backbones:
    taken = []
    for place in PLACES:
        *parents, last = place.split('.')
        node = cfg['model']
        for parent in parents:
            node = node.get(parent, {})
        if node.get(last, {}).get('type', 'mmres2net.WithStem') != 'mmres2net.WithStem':
            taken.append(node.pop(last))
    return taken


def load_pair(pair: tuple[str, str], scratch: bool) -> tuple[list[Backbones], list[dict[str, Any]], Config]:
    """The backbones of both configs, and the rest of the configs; with ``scratch`` as --from-scratch makes them."""
    configs = [load_config(name) for name in pair]
    if scratch:
        configs = [without_weights(cfg)[0] for cfg in configs]
    dicts = [single_process_norms(cfg)[0].to_dict() for cfg in configs]
    backbones = [take_backbones(cfg) for cfg in dicts]
    return backbones, [{k: v for k, v in cfg.items() if k not in HELPERS} for cfg in dicts], configs[0]


def options_of(node: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a backbone's constructor: the config's, else the defaults in its signature."""
    options: dict[str, Any] = {}
    with MODELS.switch_scope_and_registry(None) as registry:  # the default scope's
        for base in reversed(registry.get(node['type']).__mro__):
            options |= {p.name: p.default for p in inspect.signature(base.__init__).parameters.values()}
    options |= node
    stages = options.get('num_stages', 4)
    meaning_of_none = {
        'norm_cfg': {'type': 'BN'}, 'strides': (1, 2, 2, 2)[:stages], 'dilations': (1, 1, 1, 1)[:stages],
        'out_indices': (0, 1, 2, 3)[:stages], 'contract_dilation': False, 'stage_with_dcn': (False,) * 4,
    }  # fmt: skip
    options |= {key: value for key, value in meaning_of_none.items() if key in options and options[key] is None}
    options['norm_cfg'] = {'requires_grad': True, **options['norm_cfg']}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}


def check_options(mine: dict[str, Any], other: dict[str, Any], paper: bool) -> None:
    shared = mine.keys() & other.keys() - ARCHITECTURE - {'type', 'init_cfg', 'pretrained', 'self', 'args', 'kwargs'}
    assert {'norm_eval', 'norm_cfg', 'with_cp'} <= shared
    for key in shared:
        # A network of three stages ignores what the options say of a fourth.
        cut = slice(len(other[key]) if key in ('strides', 'dilations') else None)
        assert mine[key] == other[key] or mine[key][cut] == other[key], key
    if 'style' in other:
        # The convolution that has the stride: the first 1x1 one, or the 3x3 one.
        assert (mine['stage_pool'] == 'maskrcnn') == (other['style'] == 'caffe') == paper
        assert (other.get('stem_channels') or 64, other.get('base_channels', 64)) == (64, 64)


def build(node: dict[str, Any], cfg: Config, device: str = 'meta') -> nn.Module:
    # mmpretrain's backbones read their drop rates from a tensor, which needs numbers in it.
    with torch.device('cpu' if node['type'].startswith('mmpretrain.') else device), scope_of(cfg):
        backbone = MODELS.build(node)
    backbone.train()
    return backbone


def stages_of(backbone: nn.Module) -> dict[str, dict[str, set[Any]]]:
    stages: dict[str, dict[str, set[Any]]] = {}
    for name, module in backbone.named_modules():
        stage = next((part for part in name.split('.') if part.startswith(('layer', 'level'))), '')
        held = stages.setdefault('' if stage in ('level0', 'level1') else stage, {'norms': set(), 'convs': set()})
        if isinstance(module, _BatchNorm):
            state = (type(module), module.eps, module.momentum, module.training, module.weight.requires_grad)
            held['norms'].add(state)
        elif isinstance(module, nn.Conv2d):
            dilation = max(module.dilation) if module.kernel_size == (3, 3) and stage else 1
            held['convs'] |= {module.weight.requires_grad, f'dilation {dilation}'}
        elif 'Drop' in type(module).__name__:
            held['convs'].add(str(module))
    return stages


@pytest.mark.parametrize('pair', PAIRS, ids=[name for name, _ in PAIRS])
@pytest.mark.parametrize('scratch', [False, True])
def test_pair_differs_in_the_architecture_alone(pair: tuple[str, str], scratch: bool) -> None:
    (ours, theirs), (our_rest, their_rest), cfg = load_pair(pair, scratch)
    assert our_rest == their_rest
    assert len(ours) == (2 if '_c4' in pair[0] else 1)
    for mine, other in zip(ours, theirs, strict=True):
        with scope_of(cfg):
            check_options(options_of(mine), options_of(other), pair[0].endswith('_paper.py'))
        assert stages_of(build(mine, cfg)) == stages_of(build(other, cfg))


def start_of(backbone: nn.Module) -> dict[str, Any]:
    """How a backbone starts: the values of norms and biases, and the std of the convolutions relative to fan out."""
    backbone.init_weights()
    values: dict[str, set[float]] = {'last norms': set(), 'norms': set(), 'biases': set()}
    ratios = []
    for name, parameter in backbone.named_parameters():
        if parameter.dim() == 4:
            ratios.append(float(parameter.std()) * (parameter[0, 0].numel() * len(parameter) / 2) ** 0.5)
        else:
            group = 'last norms' if name.endswith('bn3.weight') else 'biases' if name.endswith('bias') else 'norms'
            values[group] |= set(parameter.unique().tolist())
    return {**values, 'convolutions': pytest.approx(sum(ratios) / len(ratios), rel=0.02)}


def ways_to_start() -> list[tuple[str, str]]:
    pairs: dict[str, tuple[str, str]] = {}
    for pair in PAIRS:
        ours, theirs = load_pair(pair, True)[0]
        pairs.setdefault(str([(node['type'], node.get('zero_init_residual')) for node in ours + theirs]), pair)
    return list(pairs.values())


@pytest.mark.parametrize('pair', ways_to_start(), ids=str)
def test_pair_starts_alike_from_random_weights(pair: tuple[str, str]) -> None:
    (ours, theirs), _, cfg = load_pair(pair, True)
    for mine, other in zip(ours, theirs, strict=True):
        first, second = (start_of(build(node, cfg, 'cpu')) for node in (mine, other))
        assert first == {**second, 'convolutions': first['convolutions'].expected}

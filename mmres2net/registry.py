"""Nodes of mmres2net in MMEngine's registry tree: ``type='mmres2net.Res2Net'`` works in any OpenMMLab config.

Only mmengine is imported here. MMEngine imports this module by the prefix of a type and swallows what goes wrong on
the way, so a heavier import would turn every missing dependency into "not in the registry".
"""

import mmengine.registry as root
from mmengine.registry import Registry


def _node(parent: Registry, *modules: str) -> Registry:
    locations = [f'mmres2net.{module}' for module in modules]
    return Registry(parent.name, parent=parent, scope='mmres2net', locations=locations)


DATASETS = _node(root.DATASETS, 'data.cifar', 'data.registered', 'saliency')
MODELS = _node(root.MODELS, 'models', 'saliency')
HOOKS = _node(root.HOOKS, 'engine.hooks', 'saliency')
OPTIM_WRAPPERS = _node(root.OPTIM_WRAPPERS, 'engine.precision')
TRANSFORMS = _node(root.TRANSFORMS, 'data.registered', 'saliency')
METRICS = _node(root.METRICS, 'evaluation', 'saliency')
WEIGHT_INITIALIZERS = _node(root.WEIGHT_INITIALIZERS, 'weights.loading')

"""Nodes of mmres2net in MMEngine's registry tree: ``type='mmres2net.Res2Net'`` works in any OpenMMLab config.

Only mmengine is imported here. MMEngine imports this module by the prefix of a type and swallows what goes wrong on
the way, so a heavier import would turn every missing dependency into "not in the registry".
"""

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as ROOT_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

DATASETS = Registry(
    'dataset',
    parent=ROOT_DATASETS,
    scope='mmres2net',
    locations=['mmres2net.data.cifar', 'mmres2net.data.registered', 'mmres2net.saliency'],
)
MODELS = Registry('model', parent=ROOT_MODELS, scope='mmres2net', locations=['mmres2net.models', 'mmres2net.saliency'])
HOOKS = Registry(
    'hook', parent=ROOT_HOOKS, scope='mmres2net', locations=['mmres2net.engine.hooks', 'mmres2net.saliency']
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=ROOT_OPTIM_WRAPPERS, scope='mmres2net', locations=['mmres2net.engine.precision']
)
TRANSFORMS = Registry(
    'transform',
    parent=ROOT_TRANSFORMS,
    scope='mmres2net',
    locations=['mmres2net.data.registered', 'mmres2net.saliency'],
)
METRICS = Registry(
    'metric', parent=ROOT_METRICS, scope='mmres2net', locations=['mmres2net.evaluation', 'mmres2net.saliency']
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer', parent=ROOT_WEIGHT_INITIALIZERS, scope='mmres2net', locations=['mmres2net.weights.loading']
)

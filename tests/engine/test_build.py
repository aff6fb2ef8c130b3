"""The builder of models and data sets: its scope, its copies, and the one error for whatever cannot be built."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmres2net.engine.build import build_dataset, build_model
from mmres2net.errors import UserError

FAULTS = {kind.__name__: kind for kind in (TypeError, RuntimeError, ImportError, OSError, AssertionError)}


def scope() -> str | None:
    current = DefaultScope.get_current_instance()
    return current and current.scope_name


@MODELS.register_module()
class BuildTiny(BaseModel):
    """A model that notes its scope, writes into its options as the OpenMMLab libraries do, and fails on demand."""

    def __init__(self, *, options: dict, data_preprocessor: dict | None = None, fault: str = '') -> None:
        super().__init__(data_preprocessor)
        options['popped'] = options.pop('given')
        if fault:
            raise FAULTS[fault]('the fault that was asked for')
        self.layer = torch.nn.Linear(2, 2)
        self.scope = scope()

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = 'tensor') -> torch.Tensor:
        return self.layer(inputs)


def config(**more: object) -> Config:
    return Config(dict(default_scope='mmdet', model=dict(type='mmengine.BuildTiny', options=dict(given=1), **more)))


def test_model_is_built_in_the_scope_of_its_config_and_nothing_else_changes() -> None:
    before = scope()
    cfg = config()
    cfg.data_preprocessor = dict(type='mmengine.ImgDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0])
    was = cfg.to_dict()
    model = build_model(cfg)
    assert (model.scope, model.data_preprocessor.mean.flatten().tolist()) == ('mmdet', [1.0, 2.0, 3.0])
    assert (cfg.to_dict(), scope()) == (was, before)


@pytest.mark.parametrize('fault', FAULTS)
def test_whatever_cannot_be_built_is_one_error_with_its_cause(fault: str) -> None:
    with pytest.raises(UserError, match='the fault that was asked for') as caught:
        build_model(config(fault=fault))
    assert type(caught.value.__cause__) is FAULTS[fault]


def test_data_set_of_a_library_is_found_in_its_scope() -> None:
    node = dict(type='CustomDataset', data_root='absent', lazy_init=True, metainfo=dict(classes=('a', 'b')))
    was = dict(node)
    built = build_dataset(Config(dict(default_scope='mmpretrain')), node)
    assert (built.metainfo['classes'], node) == (('a', 'b'), was)
    assert (type(built).__module__.split('.')[0], 'CustomDataset' in DATASETS.module_dict) == ('mmpretrain', False)

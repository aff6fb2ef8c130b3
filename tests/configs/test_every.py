"""What holds for every shipped config: it is short, its model builds, and it starts from the weights of its network."""

import pytest
import torch

from mmres2net.engine.build import build_model
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from mmres2net.models import Res2LayerHead, Res2Net, Res2NetDLA
from mmres2net.paths import config_dir
from tests.configs.pairs import CONFIGS
from tests.configs.test_twins import take_backbones
from tests.reference.complexity import count_parameters

OURS = Res2Net | Res2NetDLA | Res2LayerHead


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_with_as_many_parameters_as_the_metafile_says(name: str) -> None:
    cfg = single_process_norms(without_weights(load_config(name))[0])[0]
    # mmpretrain's backbones read their drop rates from a tensor, which needs numbers in it.
    with torch.device('cpu' if 'mmpretrain.' in str(cfg.model.backbone.type) else 'meta'):
        model = build_model(cfg)
    assert round(count_parameters(model) / 1e6, 2) == CONFIGS[name]['cost']['params']
    backbone = getattr(model.backbone, 'backbone', model.backbone)
    if 'baseline' in CONFIGS[name]:
        assert isinstance(backbone, OURS)
        assert isinstance(getattr(getattr(model, 'roi_head', None), 'shared_head', backbone), OURS)


@pytest.mark.parametrize('name', CONFIGS)
def test_is_short_and_starts_from_the_weights_of_its_network(name: str) -> None:
    assert len((config_dir() / name).read_text().splitlines()) <= 40
    cfg = load_config(name)
    backbones = take_backbones(cfg.to_dict())
    for node in backbones:
        checkpoint = (node.get('init_cfg') or {}).get('checkpoint')
        assert bool(checkpoint) == name.startswith(('faster', 'mask', 'deeplab', 'dss'))
        if checkpoint:
            assert checkpoint == node.get('arch', f'torchvision://resnet{node.get("depth")}')
            pixels = cfg.model.data_preprocessor
            assert (pixels.mean, pixels.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
            assert pixels.bgr_to_rgb

"""What networks cost: published figures, an independent counter (see also test_archs.py), and the command."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torchvision import models as torchvision_models

from mmres2net.complexity import Complexity, complexity_of, complexity_of_arch, image_size
from mmres2net.complexity.job import main
from mmres2net.engine.config import load_config
from mmres2net.errors import UserError
from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.reference.complexity import count_parameters, count_work


@cache
def cost(name: str, size: tuple[int, int] = (224, 224)) -> Complexity:
    return complexity_of_arch(name, size)


@cache
def cost_of_config(name: str, size: tuple[int, int] = (224, 224)) -> Complexity:
    return complexity_of(load_config(name), size)


def test_section_3_3_about_25_million_parameters_and_4_point_2_billion_multiply_adds() -> None:
    baseline = cost_of_config('imagenet/resnet50.py')
    names = ('res2net50_48w_2s', 'res2net50_26w_4s', 'res2net50_14w_8s', 'res2next50_4s')
    for found in (baseline, *map(cost, names)):
        assert 24.5e6 < found.parameters < 26e6
        assert 4.0e9 < found.macs < 4.3e9
    for name in names[:3]:  # those of table 3 with preserved complexity
        assert abs(cost(name).macs / baseline.macs - 1) < 0.05


MEMORY = {'densenet161': 268, 'resnet101': 162, 'res2net101_26w_4s': 179}  # of table 2, in "M"


@pytest.mark.parametrize('name', MEMORY)
def test_memory_in_table_2_is_that_of_the_outputs_of_all_layers(name: str) -> None:
    """MiB of one image in float32; a layer that is called several times, as the ReLU of a block, counts once."""
    with torch.device('meta'):
        model = (Res2Net(name) if name in ARCHS else getattr(torchvision_models, name)()).eval()
    sizes: dict[nn.Module, int] = {}
    for module in model.modules():
        if not list(module.children()) and not isinstance(module, nn.Identity | nn.Sequential):
            module.register_forward_hook(lambda module, _, out: sizes.update({module: out.numel()}))
    with torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device='meta'))
    assert round(4 * sum(sizes.values()) / 2**20) == MEMORY[name]


@pytest.mark.parametrize('name', [name for name, arch in ARCHS.items() if sum(arch.depths) < 20])
def test_arch_is_what_an_independent_counter_counts(name: str) -> None:
    row = ARCHS[name]
    size, classes = ((32, 32), 100) if row.family == 'cifar' else ((224, 160), 1000)
    with torch.device('meta'):
        backbone = (Res2NetDLA(name) if row.family == 'dla' else Res2Net(name)).eval()
    channels = backbone.out_channels[-1]
    found = cost(name, size)
    assert found.size == size
    assert (found.backbone_macs, found.backbone_activations) == count_work(backbone, (1, 3, *size))
    assert found.backbone_parameters == count_parameters(backbone)
    assert found.macs - found.backbone_macs == channels * classes
    assert found.activations - found.backbone_activations == classes
    assert found.parameters - found.backbone_parameters == (channels + 1) * classes


@pytest.mark.parametrize('name', ['ResNet50', 'ResNet101', 'ResNeXt50_32X4D', 'DenseNet161'])
def test_baselines_cost_what_torchvision_says(name: str) -> None:
    found = cost_of_config(f'imagenet/{name.split("_")[0].lower()}.py')
    meta = getattr(torchvision_models, f'{name}_Weights').IMAGENET1K_V1.meta
    assert found.parameters == meta['num_params']
    assert round(found.macs / 1e9, 3) == pytest.approx(meta['_ops'], abs=0.002)


def test_stages_of_a_cascade_are_all_counted() -> None:
    cfg = load_config('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py')
    before = cfg.to_dict()
    three = complexity_of(cfg, (64, 64))
    assert cfg.to_dict() == before, 'the config stays as it is'
    cfg.model.roi_head.update(num_stages=1, stage_loss_weights=[1], bbox_head=cfg.model.roi_head.bbox_head[:1])
    cfg.model.train_cfg.rcnn = cfg.model.train_cfg.rcnn[:1]
    one = complexity_of(cfg, (64, 64))
    box_head = 256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 4)
    assert three.macs - one.macs == 2 * 1000 * box_head


def test_models_that_cannot_be_counted() -> None:
    with pytest.raises(UserError, match=r'DETR.*encoder, decoder'):
        cost_of_config('mmdet::detr/detr_r50_8xb2-150e_coco.py', (64, 64))
    with pytest.raises(UserError, match='8x8'):
        cost_of_config('mmpretrain::inception_v3/inception-v3_8xb32_in1k.py', (8, 8))


def test_command_prints_a_table_and_writes_exact_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ['res2net50', 'res2next29_6c24w4s', 'imagenet/res2net50_26w_4s_299']
    assert main([*names, '--json', str(tmp_path / 'x.json')]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ['res2net50', '224x224', '25.70', '(23.65)', '4.255', '(4.253)', '12.61', '(12.61)']
    assert [line.split()[:2] for line in lines[3:5]] == [[names[1], '32x32'], [names[2], '299x299']]
    rows = json.loads((tmp_path / 'x.json').read_text())
    assert [(row['name'], row['kind']) for row in rows] == list(zip(names, ['arch', 'arch', 'config'], strict=True))
    assert (rows[0]['parameters'], rows[0]['size']) == (25_699_120, [224, 224])
    assert main(['res2net50_26w_4s', 'faster_rcnn_r50', '--size', '64x96']) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[2:4]] == ['64x96', '64x96']


def test_mistakes_are_refused_before_work(capsys: pytest.CaptureFixture[str]) -> None:
    near = r'res2net50_26w_4s,.*imagenet/res2net50_26w_4s\.py'  # of both name spaces
    for flags, named in ((['res2net50_26w_5s'], near), (['nothing like it'], 'nothing'), (['--json', '/'], '--json')):
        with pytest.raises(UserError, match=named):
            main(['res2net50', *flags])
    assert not capsys.readouterr().out


CROPS = [
    ('mmseg', dict(type='RandomCrop', crop_size=(512, 1024)), (512, 1024)),
    ('mmpretrain', dict(type='RandomCrop', crop_size=32), (32, 32)),
    ('mmpretrain', dict(type='RandomResizedCrop', scale=(32, 48)), (32, 48)),
    ('mmdet', dict(type='RandomCrop', crop_size=(1024, 512)), (512, 1024)),
    ('mmpretrain', dict(type='CenterCrop', crop_size=(48, 32)), (32, 48)),
    ('mmseg', dict(type='Resize', scale=(2048, 1024)), (1024, 2048)),
]
SIZES = {
    'faster_rcnn_r50.py': (800, 1344), 'faster_rcnn_r50_c4.py': (608, 1008), 'deeplabv3plus_r50.py': (513, 513),
    'demo/mask_rcnn_r50.py': (160, 160), 'imagenet/resnet50.py': (224, 224),
    'imagenet/res2net50_26w_4s_299.py': (299, 299),
}  # fmt: skip


def test_image_size_is_what_the_network_sees() -> None:
    assert {name: image_size(load_config(name)) for name in SIZES} == SIZES
    for scope, step, size in CROPS:
        loader = dict(dataset=dict(pipeline=[step]))
        assert image_size(Config(dict(default_scope=scope, model={}, train_dataloader=loader))) == size
    cfg = Config(dict(model={}, image_size=(300, 400), test_dataloader=dict(pipeline=[])))
    assert image_size(cfg) == (300, 400)
    cfg.test_dataloader.pipeline = [dict(type='Resize', scale=(640, 480))]
    assert image_size(cfg) == (480, 640)
    with pytest.raises(UserError, match='--size'):
        image_size(Config(dict(model=dict(type='x'), test_dataloader=dict())))


def test_parts_add_up_to_an_independent_count() -> None:
    cfg = load_config('faster_rcnn_r2n50_c4.py')
    found = complexity_of(cfg, (96, 128))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    head = model.roi_head
    backbone = count_work(model.backbone, (1, 3, 96, 128))[0]
    rpn = 6 * 8 * (1024 * 512 * 9 + 512 * 12 * 5)  # 12 anchors a place: a score and four offsets each
    regions = 300 * (count_work(head.shared_head, (1, 1024, 7, 7))[0] + 2048 * (81 + 320))
    assert found.backbone_macs == backbone
    assert found.macs == backbone + rpn + regions
    assert found.backbone_parameters == count_parameters(model.backbone) + count_parameters(head.shared_head)
    assert found.parameters == count_parameters(model)

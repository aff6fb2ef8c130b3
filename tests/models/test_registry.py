"""One class, reached from every host's configs by its prefixed name; and a package that imports no host."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

import mmres2net
from mmres2net.models import Res2Net, Res2NetDLA
from mmres2net.registry import MODELS

HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
PACKAGE = Path(mmres2net.__file__).parent
RES2NET = dict(
    type='mmres2net.Res2Net',
    arch='res2net50_26w_4s',
    out_indices=(0, 1, 2, 3),
    frozen_stages=1,
    norm_eval=True,
    norm_cfg=dict(type='BN', requires_grad=True),
)
DLA = dict(type='mmres2net.Res2NetDLA', arch='dla60_res2net')


def host_models(scope):
    """The host's model registry; the test skips where the host is absent."""
    return pytest.importorskip(f'{scope}.registry').MODELS


def run_python(code):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def imports_of(path):
    """Full names of the modules that a file imports, at its top and inside of functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.name == '__init__.py', f'{path}: relative import'
            names.append(node.module or '')
    return names


# Building by name -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('scope', HOSTS)
@pytest.mark.parametrize(('config', 'expected'), [(RES2NET, Res2Net), (DLA, Res2NetDLA)], ids=['Res2Net', 'DLA'])
def test_prefixed_name_is_our_class_in_every_host(scope, config, expected):
    with DefaultScope.overwrite_default_scope(scope):
        model = host_models(scope).build(dict(config))
    assert type(model) is expected


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_bare_name_stays_the_hosts_own_class(scope):
    """Both hosts have a Res2Net of their own, which is why configs must say the prefix."""
    registry = host_models(scope)
    pytest.importorskip(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        found = registry.get('Res2Net')
    assert found is not Res2Net
    assert found.__module__.startswith(scope)


def test_name_is_found_without_importing_us():
    for scope in HOSTS:
        host_models(scope)
    done = run_python(f"""
        from importlib import import_module
        from mmengine.registry import DefaultScope
        for scope in {HOSTS}:
            with DefaultScope.overwrite_default_scope(scope):
                print(import_module(scope + '.registry').MODELS.get('mmres2net.Res2Net').__module__)
    """)
    assert done.stdout.split() == ['mmres2net.models.res2net'] * 3, done.stderr


def test_configs_with_unknown_keys_fail_at_build():
    with pytest.raises(TypeError, match='deepstem'):
        MODELS.build(dict(RES2NET, deepstem=True))
    with pytest.raises(ValueError, match=r"unknown arch 'res2net50_26w'.*res2net50_26w_4s"):
        MODELS.build(dict(RES2NET, arch='res2net50_26w'))


# Whole models of the hosts --------------------------------------------------------------------------------------------


def detector(backbone):
    """The smallest RetinaNet of mmdet over all four stages of `backbone`."""
    channels = (128, 256, 512, 1024) if backbone is DLA else (256, 512, 1024, 2048)
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(backbone),
        neck=dict(type='FPN', in_channels=list(channels), out_channels=16, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8, 16, 32, 64],
            ),
        ),
        test_cfg=dict(nms_pre=10, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
    )


@pytest.mark.parametrize(('backbone', 'expected'), [(RES2NET, Res2Net), (DLA, Res2NetDLA)], ids=['Res2Net', 'DLA'])
def test_detector_of_mmdet(backbone, expected):
    registry = host_models('mmdet')
    pytest.importorskip('mmdet.models')
    from mmdet.structures import DetDataSample

    with DefaultScope.overwrite_default_scope('mmdet'):
        model = registry.build(ConfigDict(detector(backbone)))
        assert type(model.backbone) is expected
        model.init_weights()
        model.eval()
        sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0)))
        with torch.no_grad():
            found = model.predict(torch.randn(1, 3, 96, 128), [sample])[0].pred_instances
    assert found.bboxes.shape == (5, 4)
    assert found.scores.isfinite().all()


def test_segmentor_of_mmseg():
    registry = host_models('mmseg')
    pytest.importorskip('mmseg.models')
    backbone = dict(RES2NET, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    config = dict(
        type='EncoderDecoder',
        backbone=backbone,
        decode_head=dict(
            type='FCNHead', in_channels=2048, in_index=3, channels=8, num_convs=1, concat_input=False, num_classes=4
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = registry.build(config)
        assert type(model.backbone) is Res2Net
        model.eval()
        with torch.no_grad():
            logits = model(torch.randn(1, 3, 64, 96), mode='tensor')
    assert logits.shape == (1, 4, 8, 12)  # output stride 8


def test_classifier_of_mmpretrain():
    registry = host_models('mmpretrain')
    pytest.importorskip('mmpretrain.models')
    config = dict(
        type='ImageClassifier',
        backbone=dict(RES2NET, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=2048, loss=dict(type='CrossEntropyLoss')),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = registry.build(config)
        assert type(model.backbone) is Res2Net
        model.eval()
        with torch.no_grad():
            scores = model(torch.randn(2, 3, 64, 64), mode='tensor')
    assert scores.shape == (2, 7)


# What imports what ----------------------------------------------------------------------------------------------------


def test_models_work_where_every_host_is_absent():
    done = run_python(f"""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in {HOSTS}:
                    raise ModuleNotFoundError(f'blocked: {{name}}')

        sys.meta_path.insert(0, Absent())
        import torch
        from mmres2net.models import Res2Net, Res2NetDLA
        from mmres2net.registry import MODELS
        model = MODELS.build(dict(type='Res2Net', arch='res2next50', drop_path_rate=0.1))
        model.init_weights()
        print([tuple(out.shape) for out in model.eval()(torch.randn(1, 3, 32, 32))][-1])
        dla = MODELS.build(dict(type='Res2NetDLA', arch='dla60'))
        print(sorted(m for m in sys.modules if m.split('.')[0] in {HOSTS}))
    """)
    assert done.stdout.splitlines()[-2:] == ['(1, 2048, 1, 1)', '[]'], done.stderr


def test_package_itself_imports_no_torch():
    done = run_python("""
        import sys
        import mmres2net
        heavy = ('torch', 'mmengine', 'mmcv', 'numpy', 'mmdet', 'mmseg', 'mmpretrain')
        print(mmres2net.__version__, [m for m in heavy if m in sys.modules])
    """)
    assert done.stdout.strip() == f'{mmres2net.__version__} []', done.stderr


def test_registry_imports_mmengine_alone():
    assert {name.split('.')[0] for name in imports_of(PACKAGE / 'registry.py')} == {'mmengine'}


def test_models_import_torch_mmengine_mmcv_and_themselves():
    files = sorted((PACKAGE / 'models').rglob('*.py'))
    assert len(files) >= 4
    for path in files:
        for name in imports_of(path):
            root = name.split('.')[0]
            if root == 'mmres2net':
                assert name.startswith(('mmres2net.models', 'mmres2net.registry', 'mmres2net.init_cfg')), (
                    f'{path.name} imports {name}'
                )
            elif root == 'mmcv':
                assert name.startswith('mmcv.cnn') or name == 'mmcv.ops', f'{path.name} imports {name}'
            else:
                assert root in {'torch', 'mmengine'} or root in sys.stdlib_module_names, f'{path.name} imports {name}'


def test_nothing_in_the_package_imports_tools_tests_or_configs():
    for path in PACKAGE.rglob('*.py'):
        roots = {name.split('.')[0] for name in imports_of(path)}
        assert not roots & {'tools', 'tests', 'configs'}, path

"""One class, reached from the configs of every OpenMMLab library by its prefixed name."""

import importlib
import subprocess
import sys
import textwrap

import pytest
import torch
from mmengine.registry import DefaultScope

from mmres2net.models import Res2Net, Res2NetDLA
from mmres2net.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, WEIGHT_INITIALIZERS

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
RES2NET = dict(type='mmres2net.Res2Net', arch='res2net50_26w_4s', frozen_stages=1)
DLA = dict(type='mmres2net.Res2NetDLA', arch='dla60_res2net')


def registry_of(library):
    return pytest.importorskip(f'{library}.registry').MODELS


def run_python(code):
    command = [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize('library', LIBRARIES)
def test_prefixed_name_is_our_class_in_every_library_and_the_bare_one_the_librarys(library):
    """mmdet and mmpretrain have a Res2Net of their own, which is why configs must have the prefix."""
    importlib.import_module(f'{library}.models')
    with DefaultScope.overwrite_default_scope(library), torch.device('meta'):
        for config, kind in ((RES2NET, Res2Net), (DLA, Res2NetDLA)):
            assert type(registry_of(library).build(dict(config))) is kind
        bare = registry_of(library).get('Res2Net')
        assert bare is None if library == 'mmseg' else bare.__module__.startswith(library)


def test_mmengines_own_registries_have_no_class_of_ours():
    """There, a bare name would be found from every library, and could not be registered by another package."""
    for registry in (MODELS, DATASETS, HOOKS, METRICS, TRANSFORMS, WEIGHT_INITIALIZERS):
        registry.import_from_location()
        ours, roots = ({v.__module__ for v in r.module_dict.values()} for r in (registry, registry.parent))
        assert ours
        assert not {name for name in roots if name.startswith('mmres2net')}


def test_names_are_found_without_importing_the_package():
    for library in LIBRARIES:
        registry_of(library)
    # Without compiled operators, the libraries need those that the package provides.
    first = 'import mmres2net' if 'mmres2net' in str(importlib.import_module('mmcv._ext').__spec__.origin) else ''
    done = run_python(f"""
        {first}
        from importlib import import_module
        from mmengine.registry import DefaultScope
        for library in {LIBRARIES}:
            with DefaultScope.overwrite_default_scope(library):
                print(import_module(library + '.registry').MODELS.get('mmres2net.Res2Net').__module__)
    """)
    assert done.stdout.split() == ['mmres2net.models.res2net'] * 3, done.stderr


def test_models_work_where_every_library_is_absent():
    """Also deformable convolutions, whose module nobody has imported."""
    done = run_python(f"""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in {LIBRARIES}:
                    raise ModuleNotFoundError(f'blocked: {{name}}')

        sys.meta_path.insert(0, Absent())
        import torch
        from mmres2net.models import Res2Net
        from mmres2net.registry import MODELS
        dcn = dict(dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, True))
        model = MODELS.build(dict(type='Res2Net', depths=(1, 1), drop_path_rate=0.1, **dcn))
        model.init_weights()
        print([tuple(out.shape) for out in model.eval()(torch.randn(1, 3, 32, 32))][-1])
        print(sorted(m for m in sys.modules if m.split('.')[0] in {LIBRARIES}))
    """)
    assert done.stdout.splitlines()[-2:] == ['(1, 512, 4, 4)', '[]'], done.stderr

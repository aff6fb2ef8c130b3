"""What the probes' answers become: each failure with the remedy that mends it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from mmres2net.doctor.child import Answer, ask
from mmres2net.doctor.compiled import check_coco, check_data, check_ops, check_registry, line_of, remedy_for

from .conftest import Distribution, Module

COMPILE = 'pip install --no-cache-dir --no-build-isolation --force-reinstall --no-deps "onedl-mmcv'


@pytest.mark.parametrize(
    ('probe', 'error', 'words'),
    [
        ('mmcv_ops', 'ImportError: _ext.so: undefined symbol: _ZN2at4_ops', ('another torch', COMPILE)),
        ('mmcv_ops', "ModuleNotFoundError: No module named 'mmcv._ext'", ('mmcv-lite', COMPILE)),
        ('mmcv_ops', 'the interpreter crashed with SIGSEGV at x.py:1', (COMPILE,)),
        ('mmcv_ops', 'ValueError: mmcv.ops.nms on cpu gave [0], right is [1, 2]', (COMPILE,)),
        ('torchvision', 'RuntimeError: operator torchvision::nms does not exist', ('one index', 'pip uninstall')),
        ('opencv', 'ImportError: libGL.so.1: cannot open', ('opencv-python-headless', 'libgl1')),
        ('pycocotools', 'ValueError: numpy.dtype size changed', ('--no-cache-dir', '"pycocotools', 'numpy<2')),
        ('pycocotools', 'AttributeError: _ARRAY_API not found', ('another numpy',)),
        ('mmengine', "ModuleNotFoundError: No module named 'pkg_resources'", ('setuptools<82',)),
        ('mmengine', "ModuleNotFoundError: No module named 'addict'", ('pip install addict',)),
        ('pycocotools', "ModuleNotFoundError: No module named 'pycocotools'", ('pip install', '"pycocotools')),
        ('mmdet', 'AssertionError: MMCV==2.2.0 is used but incompatible.', ('"onedl-mmdetection',)),
        ('torch', 'no answer within 120 s', ('try it again', '"torch')),
        ('numpy', 'the interpreter crashed with SIGSEGV', ('--force-reinstall', '"numpy')),
    ],
)
def test_remedies(probe: str, error: str, words: tuple[str, ...]) -> None:
    remedy = remedy_for(probe, error)
    assert [word for word in words if word not in remedy] == []
    assert '{' not in remedy


def test_mmcv_without_its_ops(module: Module) -> None:
    module('mmcv', "__version__ = '2.2.0'\n")
    (found,) = check_ops(ask(['mmcv_ops']))
    assert (found.name, found.status) == ('mmcv ops', 'fail')
    assert found.detail == "ModuleNotFoundError: No module named 'mmcv._ext'"
    assert 'has no compiled ops' in found.remedy


def test_a_stale_mmcv(module: Module) -> None:
    module('mmcv', "__version__ = '2.3.6'\n")
    module('mmcv._ext', "raise ImportError('_ext.so: undefined symbol: _ZN3c1017RegisterOperators')\n")
    (found,) = check_ops(ask(['mmcv_ops']))
    assert (found.status, 'compiled against another torch' in found.remedy) == ('fail', True)


def test_a_pycocotools_of_another_numpy(module: Module) -> None:
    module('pycocotools.mask', "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')\n")
    found = line_of('pycocotools', ask(['pycocotools'])['pycocotools'])
    assert (found.status, 'another numpy' in found.remedy) == ('fail', True)


def test_a_probe_that_was_not_tried() -> None:
    found = line_of('opencv', Answer(blocked='mmcv_ops'))
    assert (found.name, found.status, found.detail) == ('OpenCV', 'skip', 'not tried: it needs mmcv ops, see there')


@pytest.mark.usefixtures('alone')
def test_without_the_faster_evaluator(distribution: Distribution) -> None:
    distribution('pycocotools', '2.0.11')
    slow, fast = check_coco({'pycocotools': Answer({'version': '2.0.11'})})
    assert (slow.status, fast.status) == ('ok', 'warn')
    assert 'pip install "faster-coco-eval' in fast.remedy


def host(full: str | None, bare: str | None) -> dict[str, Any]:
    return {'version': '3.5.1', 'types': {'mmres2net.Res2Net': full, 'Res2Net': bare}}


@pytest.mark.parametrize(
    ('facts', 'status', 'word'),
    [
        (host('mmres2net.models.res2net', 'mmdet.models.backbones.res2net'), 'ok', "is mmdet's own"),
        (host('mmres2net.models.res2net', None), 'ok', 'is ours'),
        (host('mmres2net.models.res2net', 'mmres2net.models.res2net'), 'fail', "not mmdet's own"),
        (host('elsewhere.res2net', 'mmdet.models'), 'fail', 'gives elsewhere.res2net'),
        (host(None, None), 'fail', 'gives None'),
    ],
)
def test_names_in_a_host(facts: dict[str, Any], status: str, word: str) -> None:
    own = {'ours': ['Res2Net'], 'lost': [], 'bare': []}
    first, found = check_registry({'registry': Answer(own), 'mmdet': Answer(facts)}, ['mmdet'])
    assert (first.status, found.status) == ('ok', status)
    assert word in found.detail


@pytest.mark.parametrize(
    ('lost', 'bare', 'word'), [(['Res2Net'], [], 'another class'), ([], ['Res2Net'], 'shadows the hosts')]
)
def test_names_of_ours_that_clash(lost: list[str], bare: list[str], word: str) -> None:
    (found,) = check_registry({'registry': Answer({'ours': ['Res2Net'], 'lost': lost, 'bare': bare})}, [])
    assert (found.status, word in found.detail, 'Res2Net' in found.remedy) == ('fail', True, True)


def test_a_class_of_ours_in_the_root_registry_is_found() -> None:
    source = (
        'from mmengine.registry import MODELS\nimport mmres2net.models as ours\n'
        'MODELS.register_module(module=ours.Res2Net)\n'
        "from mmres2net.doctor.probes import registry\nprint(registry()['bare'])\n"
    )
    done = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['Res2Net']"


def test_data_roots() -> None:
    entry = {'missing': [], 'configs': ['a.py', 'b.py'], 'prepare': 'coco', 'embedded': False}
    roots = {
        'data/coco/': {**entry, 'missing': ['data/coco/train2017', 'data/coco/val2017']},
        'data/own/': {**entry, 'missing': ['data/own/x'], 'prepare': ''},
        'data/shapes/': {**entry, 'missing': ['data/shapes/train2017'], 'embedded': True},
        'data/voc/': entry,
    }
    absent, own, embedded, there = check_data({'data': Answer({'roots': roots})})
    assert (absent.status, own.status, embedded.status, there.status) == ('note', 'note', 'ok', 'ok')
    assert absent.detail == 'not here: data/coco/train2017 and 1 more; 2 configs such as a.py read it'
    assert absent.remedy.startswith('mmres2net prepare-data coco, or ')
    assert own.remedy.startswith('start where data/ lies')
    assert 'made on the first run' in embedded.detail
    assert there.detail.startswith('present; 2 configs')

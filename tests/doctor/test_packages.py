"""Owners, sets, ceilings, ranges: each broken on purpose with made-up distributions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmres2net.doctor import packages
from mmres2net.doctor.result import Result, guarded, wanted

from .conftest import Distribution, Module

ORIGINAL_MMDET = """
mmcv_minimum_version = '2.0.0rc4'
mmcv_maximum_version = '2.2.0'
mmengine_minimum_version = '0.7.1'
mmengine_maximum_version = '1.0.0'
raise AssertionError('only read, never imported')
"""
ORIGINAL_MMSEG = "MMCV_MIN = '2.0.0rc4'\nMMCV_MAX = '2.2.0'\nMMENGINE_MIN = '0.5.0'\nMMENGINE_MAX = '1.0.0'\n"


def lines(results: object) -> dict[str, Result]:
    return {result.name: result for result in results}


@pytest.mark.parametrize(
    ('version', 'status'), [((3, 9, 18), 'fail'), ((3, 10, 0), 'ok'), ((3, 13, 1), 'ok'), ((3, 14, 0), 'warn')]
)
def test_python(version: tuple[int, ...], status: str) -> None:
    (found,) = packages.check_python(version)
    assert found.status == status
    assert ('3.10 to 3.13' in found.remedy) == (status != 'ok')


@pytest.mark.usefixtures('alone')
def test_two_owners_of_one_name(distribution: Distribution, module: Module) -> None:
    distribution('mmcv', '2.1.0', 'mmcv')
    distribution('onedl-mmcv', '2.3.6', 'mmcv')
    module('mmcv')
    found = lines(packages.check_owners())['mmcv']
    assert found.status == 'fail'
    assert 'mmcv 2.1.0 and onedl-mmcv 2.3.6' in found.detail
    assert found.remedy.startswith(
        'pip uninstall -y mmcv onedl-mmcv && pip install --no-cache-dir --no-build-isolation'
    )
    assert '"onedl-mmcv' in found.remedy


@pytest.mark.usefixtures('alone')
def test_an_unknown_fork_counts_as_owner(distribution: Distribution, module: Module) -> None:
    distribution('mmdet', '3.3.0')
    distribution('somebodys-mmdet', '9.0', 'mmdet')
    module('mmdet')
    assert list(packages.owners_of('mmdet')) == ['mmdet', 'somebodys-mmdet']
    assert lines(packages.check_owners())['mmdet'].status == 'fail'


@pytest.mark.usefixtures('alone')
def test_files_that_went_with_another_owner(distribution: Distribution, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution('onedl-mmengine', '0.10.12', 'mmengine')
    monkeypatch.setattr(packages, 'origin_of', lambda name: None)
    found = lines(packages.check_owners())
    assert found['mmengine'].status == 'fail'
    assert 'its files are gone' in found['mmengine'].detail
    assert found['mmengine'].remedy == 'pip install --force-reinstall --no-deps onedl-mmengine==0.10.12'
    assert (found['mmcv'].status, found['mmcv'].detail) == ('fail', 'not installed')
    assert found['mmdet'].status == 'note'
    assert lines(packages.check_owners(frozenset({'mmdet'})))['mmdet'].status == 'fail'


def test_a_folder_that_shadows_an_installed_package(module: Module, site: Path) -> None:
    origin = module('mmcv')
    found = lines(packages.check_owners())['mmcv']
    assert found.status == 'warn'
    assert f'{origin} is imported in its place' in found.detail
    assert str(site) in found.remedy


@pytest.mark.usefixtures('alone')
def test_a_package_that_nobody_owns(module: Module) -> None:
    module('mmseg')
    found = lines(packages.check_owners())['mmseg']
    assert (found.status, 'no distribution owns' in found.detail) == ('warn', True)


@pytest.mark.usefixtures('alone')
def test_a_mix_of_both_sets(distribution: Distribution) -> None:
    distribution('mmengine', '0.10.7', 'mmengine')
    distribution('onedl-mmcv', '2.3.6', 'mmcv')
    (found,) = packages.check_sets()
    assert found.status == 'warn'
    assert 'mmengine beside onedl-mmcv' in found.detail
    assert 'pip uninstall -y mmengine,' in found.remedy


@pytest.mark.usefixtures('alone')
@pytest.mark.parametrize(
    ('owners', 'kind'), [(('mmengine', 'mmcv-lite'), 'original'), (('onedl-mmengine', 'onedl-mmcv'), 'maintained')]
)
def test_one_set(distribution: Distribution, owners: tuple[str, str], kind: str) -> None:
    distribution(owners[0], '0.10.7', 'mmengine')
    distribution(owners[1], '2.1.0', 'mmcv')
    (found,) = packages.check_sets()
    assert (found.status, kind in found.detail) == ('ok', True)


@pytest.mark.usefixtures('alone')
@pytest.mark.parametrize(('host', 'source'), [('mmdet', ORIGINAL_MMDET), ('mmseg', ORIGINAL_MMSEG)])
@pytest.mark.parametrize(('mmcv', 'status'), [('2.0.0rc3', 'fail'), ('2.1.0', 'ok'), ('2.2.0', 'fail')])
def test_ceilings_are_predicted(
    distribution: Distribution, module: Module, host: str, source: str, mmcv: str, status: str
) -> None:
    distribution('mmcv', mmcv, 'mmcv')
    distribution('mmengine', '0.10.7', 'mmengine')
    module(host, source)
    found = lines(packages.check_ceilings())
    assert found[f'{host} takes mmcv'].status == status
    assert found[f'{host} takes mmengine'].status == 'ok'
    if status == 'fail':
        assert f'{mmcv}; {host} asserts mmcv >=2.0.0rc4,<2.2.0' in found[f'{host} takes mmcv'].detail
        assert 'onedl-mm' in found[f'{host} takes mmcv'].remedy


def test_a_source_that_cannot_be_read_has_no_limits(module: Module, tmp_path: Path) -> None:
    assert packages.limits_in(module('mmdet', 'def broken(')) == {}
    assert packages.limits_in(tmp_path / 'absent.py') == {}


@pytest.mark.usefixtures('alone')
def test_version_ranges(distribution: Distribution) -> None:
    needs = ('torch<2.14,>=2.4', 'numpy>=1.26', 'tqdm>=4.66', 'onedl-mmcv<2.4,>=2.3.6', 'pycocotools>=2; extra=="det"')
    distribution('mmres2net', '0.1', requires=(*needs, 'timm>=1; extra == "dev"'))
    distribution('torch', '2.14.0+cu130')
    distribution('numpy', '2.2.6')
    distribution('timm', '0.9')
    distribution('mmcv', '2.1.0', 'mmcv')
    found = lines(packages.check_requirements())
    assert set(found) == {'torch', 'tqdm', 'timm', 'version ranges'}
    assert (found['torch'].status, found['torch'].detail) == ('fail', '2.14.0+cu130 is outside <2.14,>=2.4')
    assert found['torch'].remedy == 'pip install "torch<2.14,>=2.4"'
    assert (found['tqdm'].status, found['tqdm'].detail) == ('fail', 'not installed')
    assert found['timm'].status == 'fail'
    assert found['version ranges'].detail.startswith('1 distributions')
    assert wanted('onedl-mmcv') == 'onedl-mmcv<2.4,>=2.3.6'
    assert wanted('onedl') == 'onedl'


@pytest.mark.usefixtures('alone')
def test_our_own_metadata_are_missing() -> None:
    (found,) = packages.check_requirements()
    assert (found.status, 'not installed' in found.detail) == ('warn', True)


@pytest.mark.usefixtures('alone')
@pytest.mark.parametrize(
    ('torch', 'vision', 'pin', 'status'),
    [
        ('2.11.0', '0.26.0', 'torch (==2.11.0)', 'ok'),
        ('2.11.0+cu130', '0.26.0+cu130', 'torch==2.11.0', 'ok'),
        ('2.13.0', '0.26.0', 'torch (==2.11.0)', 'fail'),
        ('2.13.0', '0.26.0', 'torch==2.11.0; python_version > "3"', 'fail'),
        ('2.13.0+cpu', '0.28.0+cu130', 'torch==2.13.0', 'fail'),
        ('2.11.0', '0.26.0a0', 'numpy', 'ok'),
    ],
)
def test_torch_and_torchvision(distribution: Distribution, torch: str, vision: str, pin: str, status: str) -> None:
    distribution('torch', torch)
    distribution('torchvision', vision, requires=(pin,))
    (found,) = packages.check_pair()
    assert found.status == status
    assert (f'torch {torch}, torchvision {vision}' in found.detail) is True
    assert bool(found.remedy) == (status == 'fail')


@pytest.mark.usefixtures('alone')
@pytest.mark.parametrize(('second', 'status'), [('5.0.0', 'warn'), ('4.11.0', 'fail'), (None, '')])
def test_owners_of_cv2(distribution: Distribution, second: str | None, status: str) -> None:
    distribution('opencv-python-headless', '5.0.0')
    if second:
        distribution('opencv-python', second, 'cv2')
    found = list(packages.check_opencv())
    assert [result.status for result in found] == ([status] if status else [])
    if found:
        assert found[0].remedy.startswith('pip uninstall -y opencv-python opencv-python-headless && pip install')


@pytest.mark.usefixtures('alone')
def test_pkg_resources(distribution: Distribution, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution('setuptools', '82.0.0')
    assert list(packages.check_pkg_resources()) == []
    distribution('mmengine', '0.10.7', 'mmengine')
    monkeypatch.setattr(packages, 'origin_of', lambda name: None)
    (found,) = packages.check_pkg_resources()
    assert (found.status, found.remedy) == ('fail', 'pip install "setuptools<82"')


def test_a_check_that_breaks_is_a_finding() -> None:
    def missing() -> list[Result]:
        raise ModuleNotFoundError("No module named 'packaging'", name='packaging')

    def wrong() -> list[Result]:
        raise KeyError('x')

    assert guarded('ceilings', missing)[0].remedy == 'pip install packaging'
    assert "KeyError: 'x'" in guarded('ceilings', wrong)[0].detail
    assert guarded('ceilings', wrong)[0].status == 'fail'


@pytest.mark.parametrize('status', ['warn', 'fail'])
def test_no_fault_without_a_remedy(status: str) -> None:
    with pytest.raises(ValueError, match='needs a remedy'):
        Result('x', status, 'bad')


@pytest.mark.usefixtures('alone')
def test_advice_keeps_to_the_set_that_is_there(distribution: Distribution, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, 'origin_of', lambda name: None)
    assert packages.compile_mmcv().endswith('"onedl-mmcv" (in a checkout: make setup)')
    distribution('mmcv-lite', '2.1.0', 'mmcv')
    assert packages.compile_mmcv().startswith('pip uninstall -y mmcv-lite && pip install')
    distribution('mmengine', '0.10.7', 'mmengine')
    way = packages.compile_mmcv('FORCE_CUDA=1')
    assert way.startswith('pip uninstall -y mmcv-lite && MMCV_WITH_OPS=1 FORCE_CUDA=1 pip install --no-cache-dir ')
    assert '"mmcv==2.1.0", or the maintained set in a new environment' in way
    assert 'without: pip install "mmdet"' in lines(packages.check_owners())['mmdet'].detail

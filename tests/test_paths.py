"""The shipped configs are found by path, by name and by command, and a wrong name gets one helpful error."""

from pathlib import Path

import pytest

from mmres2net import paths


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ('faster_rcnn_r50.py', 'faster_rcnn_r2n50.py', 'demo/faster_rcnn_r2n50.py', '_base_/runtime.py'):
        path = tmp_path / 'configs' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(paths, '_PACKAGE', tmp_path / 'mmres2net')
    return tmp_path / 'configs'


def test_names_mean_shipped_files_and_the_list_is_without_fragments(shipped: Path) -> None:
    assert paths.list_configs() == ['demo/faster_rcnn_r2n50.py', 'faster_rcnn_r2n50.py', 'faster_rcnn_r50.py']
    (shipped / 'lr0.02.py').touch()  # its dot begins no suffix
    for name in ('faster_rcnn_r2n50.py', 'faster_rcnn_r2n50', 'demo/faster_rcnn_r2n50', 'lr0.02'):
        assert paths.find_config(name) == shipped / f'{name.removesuffix(".py")}.py'


def test_existing_path_is_returned_as_it_is(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / 'own' / 'faster_rcnn_r50.py'
    own.parent.mkdir()
    own.touch()
    assert paths.find_config(own) == own
    monkeypatch.chdir(own.parent)
    assert paths.find_config('faster_rcnn_r50.py') == Path('faster_rcnn_r50.py')  # the user's file, not the shipped one


def test_wrong_name_lists_what_comes_close_or_all(shipped: Path) -> None:
    demo = 'demo/faster_rcnn_r2n50.py'
    near = {'faster_rcnn_r2n5O.py': f'{demo}, faster_rcnn_r2n50.py'}
    for name, listed in {**near, 'zzz': '`mmres2net configs --list`'}.items():
        with pytest.raises(FileNotFoundError, match=name) as error:
            paths.find_config(name)
        assert listed in str(error.value)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ('retina/retina_r50-d8_1x.py', 'retina/twice.py', 'other/twice.py', '_base_/model.py'):
        path = tmp_path / 'somelib' / '.mim' / 'configs' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ('somelib', 'plain'):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / '__init__.py').write_text('raise RuntimeError("imported")')
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / 'somelib' / '.mim' / 'configs'


def test_config_of_a_library(library: Path) -> None:
    for name in ('retina/retina_r50-d8_1x.py', 'retina/retina_r50-d8_1x', 'retina_r50-d8_1x'):
        assert paths.find_config(f'somelib::{name}') == library / 'retina' / 'retina_r50-d8_1x.py'
    absent = {name: name.split(':')[0] for name in ('somelib::zzz', 'plain::x', 'absent_lib::x', '__main__::x')}
    absent |= {'../up::x': r'\.\./up', 'somelib::twice': r'somelib::other/twice\.py, somelib::retina/twice\.py$'}
    for name, text in {**absent, 'somelib::retina_r50_d8_2x': r'somelib::retina/retina_r50-d8_1x\.py$'}.items():
        with pytest.raises(FileNotFoundError, match=text):
            paths.find_config(name)

"""`convert-weights` as a user runs it: files in, files out, and what it says."""

import sys
from pathlib import Path

import pytest
import torch

from mmres2net.errors import UserError
from mmres2net.models import Res2Net
from mmres2net.weights import verify
from mmres2net.weights.convert import main
from mmres2net.weights.naming import recognise
from mmres2net.weights.reading import read_checkpoint
from tests.reference.compare import randomise
from tests.weights.networks import numbered

# Narrow, and of a depth that the other libraries have
NARROW = dict(depths=(3, 4, 6, 3), base_width=4, deep_stem=True, avg_down=True)


@pytest.fixture(scope='module')
def weights():
    return randomise(Res2Net(**NARROW)).float().state_dict()


@pytest.fixture
def source(tmp_path, weights):
    """A file as the official release has them."""
    path = tmp_path / 'official.pth'
    torch.save({**weights, **numbered({'fc.weight': (10, 2048), 'fc.bias': (10,)})}, path)
    return path


def run(*argv):
    return main([str(arg) for arg in argv])


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.safetensors'])
def test_files_go_through_every_library_and_come_back(tmp_path, source, weights, suffix, capsys):
    files = [tmp_path / f'{name}{suffix}' for name in ('mmpretrain', 'back')]
    assert run(source, files[0], '--to', 'mmpretrain') == 0
    assert run(files[0], files[1], '--to', 'official') == 0
    back, first = read_checkpoint(files[1]), torch.load(source)
    assert {*back} == {*first}
    assert same({name: back[name] for name in first}, first)
    out = capsys.readouterr().out
    assert 'conv1.0.weight -> stem.0.conv.weight' in out
    assert str(files[1]) in out
    assert run(files[1], files[0], '--backbone-only', '--force') == 0
    assert {*read_checkpoint(files[0])} == {*weights}


def test_a_training_checkpoint_must_be_given_up_by_name(tmp_path, weights, capsys):
    model = {f'backbone.{name}': tensor for name, tensor in weights.items()}
    meta = {'dataset_meta': {'classes': ('cat', 'dog'), 'palette': [(0, 0, 0), (1, 2, 3)]}}
    content = {'state_dict': model, 'optimizer': {'state': {}}, 'param_schedulers': [{}], 'meta': {'epoch': 3, **meta}}
    path, target = tmp_path / 'epoch_3.pth', tmp_path / 'mmdet.pth'
    torch.save(content, path)
    with pytest.raises(UserError, match=r'optimizer, param_schedulers.*--strip-optimizer'):
        run(path, target, '--to', 'mmdet')
    assert not target.exists()
    run(path, target, '--to', 'mmdet', '--strip-optimizer')
    out = capsys.readouterr().out
    assert 'note: mmdet' in out
    found = torch.load(target)
    assert found['meta'] == meta
    assert recognise(found['state_dict']).family == 'mmdet'
    run(target, tmp_path / 'back.pth')
    assert 'mmres2net.Res2Net(depths=(3, 4, 6, 3), base_width=4' in (out := capsys.readouterr().out)
    assert "stage_pool='mmdet'" in out
    assert same(torch.load(tmp_path / 'back.pth')['state_dict'], model)
    run(target, tmp_path / 'timm.pth', '--to', 'timm')
    assert same(torch.load(tmp_path / 'timm.pth'), weights)


def test_weights_are_chosen_by_key_and_prefix(tmp_path, weights):
    """An average comes first where no key is given; of two networks one must be named."""
    both = {f'{who}.backbone.{n}': t + i for i, who in enumerate(('student', 'teacher')) for n, t in weights.items()}
    path, target = tmp_path / 'a.pth', tmp_path / 'b.pth'
    torch.save({'state_dict': both, 'state_dict_ema': {n: t * 2 for n, t in weights.items()}}, path)
    run(path, target)
    assert torch.equal(torch.load(target)['bn1.bias'], weights['bn1.bias'] * 2)
    with pytest.raises(UserError, match=r'2 networks.*--prefix'):
        run(path, target, '--key', 'state_dict', '--force')
    run(path, target, '--key', 'state_dict', '--prefix', 'teacher.backbone.', '--to', 'timm', '--force')
    assert torch.equal(torch.load(target)['bn1.bias'], weights['bn1.bias'] + 1)


@pytest.mark.parametrize('target', ['timm', 'mmdet', 'mmpretrain'])
def test_verify_runs_the_libraries_themselves(tmp_path, source, target, capsys):
    pytest.importorskip(target)
    run(source, tmp_path / 'x.pth', '--to', target, '--verify')
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('verified')]
    assert [line.split(' and ')[0] for line in lines] == [
        'verified: timm (for the official code)',
        f'verified: {target}',
    ]
    assert ("stage_pool='mmdet'" in lines[1]) is (target == 'mmdet')
    assert all(float(line.split('difference ')[1].split(',')[0]) < 1e-12 for line in lines)


def test_verify_sees_a_difference_and_nothing_is_written(tmp_path, source, monkeypatch):
    pytest.importorskip('timm')
    build = verify.Res2Net
    monkeypatch.setattr(verify, 'Res2Net', lambda **options: build(**{**options, 'stage_pool': 'mmdet'}))
    with pytest.raises(UserError, match='timm'):
        run(source, tmp_path / 'x.pth', '--to', 'timm', '--verify')
    assert not (tmp_path / 'x.pth').exists()


def test_verify_without_the_library_or_another_network_is_refused(tmp_path, source, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    torch.save(weights, tmp_path / 'ours.pth')
    for arguments in ((source, tmp_path / 'x.pth', '--to', 'timm'), (tmp_path / 'ours.pth', tmp_path / 'x.pth')):
        with pytest.raises(UserError, match='--verify'):
            run(*arguments, '--verify')
        assert not (tmp_path / 'x.pth').exists()


def test_nothing_is_written_over_unasked(tmp_path, source, weights):
    target = tmp_path / 'x.pth'
    target.write_text('precious')
    with pytest.raises(UserError, match=r'x.pth.*--force'):
        run(source, target)
    assert target.read_text() == 'precious'
    assert run(source, target, '--force') == 0
    assert torch.equal(torch.load(target)['bn1.bias'], weights['bn1.bias'])
    with pytest.raises(UserError, match=r'source'):
        run(source, source, '--force')
    for name, words in {'x.bin': '.pth, .pt, .safetensors', '/proc/x/y.pth': '/proc/x'}.items():
        with pytest.raises(UserError, match=words):  # before anything is read
            run(tmp_path / 'not_there.pth', tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path, source, monkeypatch):
    target = tmp_path / 'x.pth'
    target.write_text('precious')

    def full(content, path):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(UserError, match=r'No space left on device'):
        run(source, target, '--force')
    assert target.read_text() == 'precious'
    assert {path.name for path in tmp_path.iterdir()} == {'x.pth', 'official.pth'}


def test_a_file_that_runs_code_is_read_only_on_demand(tmp_path, weights):
    class Wrapped:
        def __reduce__(self):
            return dict, ()

    path = tmp_path / 'legacy.pth'
    torch.save({'state_dict': weights, 'args': [Wrapped(), torch.nn.ReLU()]}, path)
    with pytest.raises(UserError, match=r'--allow-unsafe-checkpoint'):
        run(path, tmp_path / 'x.pth')
    assert run(path, tmp_path / 'x.pth', '--allow-unsafe-checkpoint') == 0
    assert same(torch.load(tmp_path / 'x.pth'), weights)

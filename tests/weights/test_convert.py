"""Names of one library to another and back, bit for bit, and `convert-weights` as a user runs it."""

import pytest
import torch

from mmres2net.errors import UserError
from mmres2net.models import Res2Net
from mmres2net.weights.convert import TARGETS, convert, main
from mmres2net.weights.loading import to_ours
from mmres2net.weights.naming import recognise
from mmres2net.weights.reading import read_checkpoint
from tests.reference.compare import randomise
from tests.weights.networks import classifier, numbered, state_of, under

LIBRARIES = ('official', 'timm', 'mmpretrain')
# Which library has which network
HAVE = {
    'res2net50_14w_8s': LIBRARIES, 'res2net50_v1b_26w_4s': (*LIBRARIES, 'mmdet'), 'res2next50_4s': LIBRARIES,
    'res2net_dla60_4s': ('official', 'timm'), 'se_res2net50_26w_4s': ('timm',),
}  # fmt: skip


def bits(state):
    return {name: (tensor.dtype, tuple(tensor.shape), tensor.flatten()[0].item()) for name, tensor in state.items()}


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('arch', HAVE)
def test_there_and_back_is_the_same_to_the_bit(arch, target):
    state = state_of(arch)
    if target not in (*HAVE[arch], 'mmres2net'):
        with pytest.raises(UserError, match=rf'{target} has no Res2Net with'):
            convert(state, target)
        return
    there = convert(state, target)
    back = convert(there.state, 'mmres2net')
    assert bits(back.state) == bits(state)
    assert all(tensor is state[name] for name, tensor in back.state.items())
    # a filled counter or an invented tensor would be reported
    assert bool(there.report.adapted) is (target == 'official' and 'dla' in arch)


@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
def test_libraries_find_their_own_names(library):
    backbones = pytest.importorskip(f'{library}.models.backbones')
    theirs = backbones.Res2Net(depth=50, out_indices=(0, 1, 2, 3)).state_dict()
    converted = convert(state_of('res2net50_v1b_26w_4s'), library)
    assert {n: t.shape for n, t in converted.state.items()} == {n: t.shape for n, t in theirs.items()}


@pytest.mark.parametrize(('source', 'target'), [('official', 'mmpretrain'), ('mmpretrain', 'official')])
def test_a_classifier_goes_along_and_comes_back(source, target):
    plain = {**state_of('res2net50_v1b_26w_4s'), **classifier('res2net50_v1b_26w_4s')}
    state = plain if source == 'official' else convert(plain, 'mmpretrain').state
    assert recognise(state).family == source
    there = convert(state, target)
    assert recognise(there.state).family == target
    assert there.report.left == []
    assert bits(convert(there.state, source).state) == bits(state)
    assert {'official': 'fc.weight', 'mmpretrain': 'head.fc.weight'}[target] in there.state


def test_a_detector_stays_whole_where_it_can():
    arch = 'res2net50_v1b_26w_4s'
    heads = numbered({'neck.lateral.weight': (4, 4), 'bbox_head.fc_cls.bias': (3,)}, first=20_000)
    ours = {**under('backbone.', state_of(arch)), **heads}
    theirs = convert(ours, 'mmdet')
    assert 'backbone.stem.7.bias' in theirs.state
    assert heads.items() <= theirs.state.items()
    assert bits(convert(theirs.state, 'mmres2net').state) == bits(ours)
    backbone = convert(theirs.state, 'timm')
    assert bits(backbone.state) == bits(state_of(arch))
    assert backbone.report.left == [*heads]
    assert bits(convert(theirs.state, 'mmres2net', backbone_only=True).state) == bits(state_of(arch))


def test_the_stage_of_a_shared_head_stays_there_or_comes_home():
    arch = 'res2net50_v1b_26w_4s'
    plain = state_of(arch)
    split = {('roi_head.shared_head.' if n.startswith('layer4') else 'backbone.') + n: t for n, t in plain.items()}
    split |= numbered({'roi_head.bbox_head.fc_cls.bias': (3,)})
    kept = convert(split, 'mmres2net')
    assert bits(kept.state) == bits(split)
    assert bits(convert(split, 'official').state) == bits(plain)
    with pytest.raises(UserError, match=r'mmdet has no Res2Net stage as a shared head.*--backbone-only'):
        convert(split, 'mmdet')
    assert len(convert(split, 'mmdet', backbone_only=True).state) == len(plain)


def test_official_dla_files_lose_and_regain_what_is_never_run():
    state = {**state_of('res2net_dla60_4s'), **classifier('res2net_dla60_4s')}
    official = convert(state, 'official')
    extra = {name: tensor for name, tensor in official.state.items() if name not in state}
    roots = {name.split('.project.')[0] for name in extra}
    assert roots == {'level3', 'level4', 'level4.tree1'}
    assert sum(t.numel() for n, t in extra.items() if n.endswith(('weight', 'bias'))) == 297_472
    assert recognise(official.state).family == 'official'
    back = convert(official.state, 'timm')
    assert bits(back.state) == bits(state)
    assert set(back.report.left) == set(extra)
    assert 'level3.* (6), level4.* (12)' in str(back.report)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), None])
def test_broken_numbers_and_integers_are_named(value):
    state, name = state_of('res2net50_26w_4s'), 'layer2.1.conv3.weight'
    state[name] = state[name].clone() if value else state[name].to(torch.int8)
    if value:
        state[name][3, 2] = value
    with pytest.raises(UserError, match=name):
        to_ours(state, recognise(state))


# Narrow, and of a depth that the other libraries have
NARROW = dict(depths=(3, 4, 6, 3), base_width=4, deep_stem=True, avg_down=True)


@pytest.fixture(scope='module')
def weights():
    return randomise(Res2Net(**NARROW)).float().state_dict()


@pytest.fixture
def source(tmp_path, weights):
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
    assert ' of them renamed (' in out
    assert str(files[1]) in out
    assert run(files[1], files[0], '--backbone-only', '--force') == 0
    assert {*read_checkpoint(files[0])} == {*weights}


def test_of_a_training_checkpoint_the_model_and_its_classes_are_kept(tmp_path, weights, capsys):
    model = {f'backbone.{name}': tensor for name, tensor in weights.items()}
    meta = {'dataset_meta': {'classes': ('cat', 'dog'), 'palette': [(0, 0, 0), (1, 2, 3)]}}
    content = {'state_dict': model, 'optimizer': {'state': {}}, 'param_schedulers': [{}], 'meta': {'epoch': 3, **meta}}
    path, target = tmp_path / 'epoch_3.pth', tmp_path / 'mmdet.pth'
    torch.save(content, path)
    run(path, target, '--to', 'mmdet')
    out = capsys.readouterr().out
    assert 'entries not written: optimizer, param_schedulers, meta' in out
    assert 'note: mmdet' in out
    found = torch.load(target)
    assert found['meta'] == {'dataset_meta': {'classes': ('cat', 'dog')}}
    assert recognise(found['state_dict']).family == 'mmdet'
    run(target, tmp_path / 'back.pth')
    assert "stage_pool='mmdet'" in capsys.readouterr().out
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

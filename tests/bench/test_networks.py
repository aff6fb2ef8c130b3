"""The networks that are compared are the same function, in the process that asks as in the contenders' own."""

import numpy as np
import pytest
import torch

from mmres2net.bench.check import compare
from mmres2net.bench.jobs import WATCHED, Convolution, Inference, MatrixProduct, Reference, Training
from mmres2net.bench.networks import build, families, operations, seeded_state, state_of, timm_name
from mmres2net.bench.worker import MissingError
from mmres2net.models import Res2Net

ARCH = 'res2net50_26w_4s'
SHAPE = (2, 3, 64, 64)


def difference(tmp_path, job, reference):
    np.savez(tmp_path / 'a.npz', **job.outputs())
    np.savez(tmp_path / 'b.npz', **reference.outputs())
    return compare(tmp_path / 'a.npz', tmp_path / 'b.npz')


@pytest.fixture(scope='module')
def references():
    return {
        (job, kind): Reference(
            job, kind, {'arch': ARCH, 'shape': SHAPE, **({'live': True} if job == 'Training' else {})}
        )
        for job, kind in (('Inference', 'arch'), ('Inference', 'resnet50'), ('Training', 'arch'), ('Training', 'mmdet'))
    }


@pytest.mark.parametrize(
    ('source', 'kind', 'options'),
    [
        ('ours', 'arch', {}),
        ('ours', 'arch', {'mode': 'optimized'}),
        ('timm', 'arch', {'channels_last': True}),
        ('mmpretrain', 'arch', {}),
        ('ours', 'resnet50', {'mode': 'optimized'}),
        ('timm', 'resnet50', {}),
    ],
)
def test_inference(source, kind, options, references, tmp_path):
    pytest.importorskip(source if source != 'ours' else 'timm')
    job = Inference(source, kind, ARCH, SHAPE, **options)
    job.run()
    found = difference(tmp_path, job, references['Inference', kind])
    assert list(found) == [f'feature {i}' for i in range(4)]
    assert max(found.values()) < 1e-5
    assert references['Inference', kind].source == 'timm'


@pytest.mark.parametrize(
    ('source', 'kind'), [('ours', 'arch'), ('timm', 'arch'), ('ours', 'mmdet'), ('mmdet', 'mmdet')]
)
def test_training(source, kind, references, tmp_path):
    pytest.importorskip(source if source != 'ours' else 'timm')
    job = Training(source, kind, ARCH, SHAPE, live=True, channels_last=source == 'ours')
    job.run()
    assert all(parameter.grad is None for parameter in job.network.parameters())
    found = difference(tmp_path, job, references['Training', kind])
    assert list(found) == ['loss', *(f'gradient of {name}' for name in WATCHED)]
    # norms over the few pixels that 64x64 leaves make small differences of float32 larger
    assert max(found.values()) < 1e-2
    assert found['loss'] < 1e-5
    assert references['Training', kind].source == ('timm' if kind == 'arch' else 'ours')


def test_frozen_norms_keep_their_statistics():
    state = state_of('arch', ARCH)
    for live in (False, True):
        job = Training('ours', 'arch', ARCH, SHAPE, live=live)
        job.run()
        kept = torch.equal(job.network.state_dict()['bn1.running_mean'], state['bn1.running_mean'])
        assert kept is not live


def test_weights_depend_on_names_and_shapes_alone():
    one = seeded_state(
        {'a.weight': torch.empty(3, 2, 1, 1), 'n.running_var': torch.empty(4), 'n.count': torch.ones(1).long()}
    )
    two = seeded_state({'n.running_var': torch.empty(4), 'a.weight': torch.empty(3, 2, 1, 1)})
    assert all(torch.equal(two[name], one[name]) for name in two)
    assert 0.5 <= one['n.running_var'].min() < one['n.running_var'].max() <= 1.5
    assert one['n.count'].tolist() == [0]
    assert not torch.equal(seeded_state({'b.weight': torch.empty(3, 2, 1, 1)})['b.weight'], one['a.weight'])


def test_activations_stay_in_range():
    with torch.no_grad():
        outs = build('ours', 'arch', 'res2net101_v1b_26w_4s')(torch.randn(1, 3, 64, 64))
    assert all(0.1 < out.abs().max() < 1000 for out in outs)


@pytest.mark.parametrize(
    ('source', 'kind', 'arch', 'reason'),
    [
        ('timm', 'arch', 'res2net152_26w_4s', 'timm has no res2net152_26w_4s'),
        ('timm', 'mmdet', ARCH, 'timm has no mmdet'),
        ('mmdet', 'mmdet', 'res2next50_4s', 'mmdet has no res2next50_4s'),
        ('mmpretrain', 'arch', 'se_res2net50_26w_4s', 'mmpretrain has no se_res2net50_26w_4s'),
    ],
)
def test_what_a_peer_has_not(source, kind, arch, reason):
    pytest.importorskip(source)
    with pytest.raises(MissingError, match=reason):
        build(source, kind, arch)


def test_names_of_timm():
    assert timm_name('res2net50_v1b_26w_4s') == 'res2net50d'
    assert timm_name('res2net50d') == 'res2net50d'
    assert timm_name('res2next50_4s') == 'res2next50'
    assert timm_name('res2net101') == 'res2net101_26w_4s'


def test_operations():
    """The paper's 4.2 G (table 3) for 224x224 are multiply-adds; two operations each. The classifier is not in."""
    shape = (1, 3, 224, 224)
    assert operations('arch', ARCH, shape) / 2e9 == pytest.approx(4.2, abs=0.1)
    assert operations('resnet50', ARCH, shape) / 2e9 == pytest.approx(4.1, abs=0.1)
    # Two more passes, but for the gradient of the image
    stem = 2 * 3 * 49 * 64 * 112 * 112
    assert operations('arch', ARCH, shape, training=True) == 3 * operations('arch', ARCH, shape) - stem


def test_the_ceiling_counts_what_it_does():
    product, convolution = MatrixProduct(4), Convolution(2, 5, batch=3)
    assert product.facts() == {'operations': 2 * 4 * 4 * 4}
    assert convolution.facts() == {'operations': 2 * 9 * 2 * 2 * 5 * 5 * 3}
    product.run()
    convolution.run()


def test_families_have_four_stages():
    names = families()
    assert 'res2net50_26w_4s' in names
    assert 'res2net_dla60_4s' not in names
    assert all(len(Res2Net(name).out_channels) == 4 for name in names[:1])

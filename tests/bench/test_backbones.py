"""The benchmarks of backbones: their rows, their flags, and small runs from the command to page and picture."""

import json
import re
import subprocess
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmres2net.bench import common, device, inference, training
from mmres2net.bench.cli import command, main, parser
from mmres2net.bench.device import CudaMeter, check_device
from mmres2net.bench.exports import exported
from mmres2net.bench.jobs import MODES, Training
from mmres2net.bench.networks import KINDS, SOURCES
from mmres2net.bench.runtimes import OnnxRuntime, OpenVino
from mmres2net.bench.worker import MissingError
from mmres2net.deploy.fast import FastBottle2neck
from mmres2net.errors import UserError

ARCH = 'res2net50_26w_4s'


@pytest.fixture
def small_ceiling(monkeypatch):
    monkeypatch.setattr(common, 'CEILING', {'product': ('MatrixProduct', {'side': 64})})


def run(tmp_path, *flags):
    files = ['--json', f'{tmp_path}/a.json', '--plot', f'{tmp_path}/new/a.png', '--page', f'{tmp_path}/page.md']
    assert main([*flags, '--repeats', '2', '--turn', '0.01', '--threads', '1', *files]) == 0
    return json.loads((tmp_path / 'a.json').read_text()), (tmp_path / 'page.md').read_text()


def test_inference_for_real(tmp_path, capsys, small_ceiling, monkeypatch):
    pytest.importorskip('timm')
    best = inference.BEST
    monkeypatch.setattr(inference, 'ROWS', [row for row in inference.ROWS if 'ResNet' not in row.name])
    results, page = run(tmp_path, 'inference', '--sizes', '32x32', '--only', best)
    (case,) = results['cases']
    assert case['title'] == f'{ARCH}, 32x32'
    assert list(case['figures']) == ['timm, eager', best, 'product']
    assert case['figures']['timm, eager']['ratio'] == 1
    assert all(len(each) == 2 for each in case['runs'].values())
    assert 0 < max(case['differences'][best].values()) < 1e-4
    assert case['facts']['arch']['source'] == 'timm'
    assert case['ceiling']['product'] > 0
    assert results['panels'][0]['bars'][1]['name'] == best
    assert (
        results['command']
        == f"tools/benchmark.py inference --sizes 32x32 --only '{best}' --repeats 2 --turn 0.01 --threads 1"
    )
    assert f'Command: `{results["command"]}`: 2 turns' in page
    assert re.search(rf'\| {best} \| \d+\.\d{{3}} \| .* \| \d+% \| \de-0\d \|', page)
    assert 'with those of timm in float64' in page
    assert page.rstrip().endswith('![time / timm, eager](new/a.png)\n\n<!-- inference: end -->')
    assert capsys.readouterr().out.strip() in page
    with Image.open(tmp_path / 'new' / 'a.png') as picture:
        assert picture.size == (1080, int(120 * (2 * 0.32 + 1.1)))


def test_training_in_one_process(tmp_path, monkeypatch, small_ceiling, in_this_process):
    pytest.importorskip('timm')
    best = training.BEST
    monkeypatch.setattr(training, 'ROWS', [row for row in training.ROWS if row.name in ('timm', best)])
    results, page = run(tmp_path, 'training', '--sizes', '32x32', '--norm', 'frozen')
    (case,) = results['cases']
    assert case['title'] == f'{ARCH}, 2x3x32x32, norms on running statistics'
    assert list(case['figures']) == ['timm', best, 'product']
    assert set(case['differences'][best]) > {'loss', 'gradient of layer1.0.conv1.weight'}
    assert f'| {best} | ' in page
    assert '| peak, MiB | peak, ratio | GFLOP/s |' in page


@pytest.mark.slow
def test_scales_for_real(tmp_path, small_ceiling):
    results, page = run(tmp_path, 'inference', '--scales', '--sizes', '32x32')
    assert list(results['cases'][0]['figures'])[:3] == list(inference.SCALES)
    assert re.search(r'\| res2net50_14w_8s \| .* \| 1\.162 \| 172 \|', page)
    assert '<!-- inference-scales: begin -->' in page


@pytest.mark.slow
def test_every_contender_of_inference(tmp_path):
    results, _ = run(tmp_path, 'inference', '--sizes', '32x64', '--batch', '2')
    (case,) = results['cases']
    assert case['absent'] == {}
    wanted = [row.name for row in inference.ROWS if 'cpu' in row.devices and not row.on_demand]
    assert [name for name in case['figures'] if name not in common.CEILING] == wanted


@pytest.mark.slow
def test_every_contender_of_training(tmp_path):
    results, _ = run(tmp_path, 'training', '--sizes', '64x64')
    for case in results['cases']:
        assert case['absent'] == {}
        # A step holds at least the gradients of 23.5 million parameters.
        assert all(one['peak_mib'] > 90 for name, one in case['figures'].items() if name not in common.CEILING)
        assert [name for name in case['figures'] if name not in common.CEILING] == [row.name for row in training.ROWS]


def test_rows_are_sound():
    for rows in (inference.ROWS, training.ROWS):
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
        assert all(row.source in SOURCES and row.kind in KINDS for row in rows)
    assert all(row.mode in MODES for row in inference.ROWS)
    # What is told of ours as its best is what the tools do on a CPU.
    (best,) = [row for row in training.ROWS if row.name == training.BEST]
    assert best.fast
    network = Training('ours', 'arch', ARCH, (2, 3, 32, 32), live=False, fast=True).network
    assert any(isinstance(module, FastBottle2neck) for module in network.modules())
    assert {row.runtime for row in inference.ROWS} == {None, OnnxRuntime.__name__, OpenVino.__name__}
    for pairs, rows in ((inference.PAIRS, inference.ROWS), (training.PAIRS, training.ROWS)):
        assert {name for pair in pairs for name in pair} <= {row.name for row in rows}


@pytest.fixture
def args(tmp_path):
    def parsed(*flags):
        return parser().parse_args(list(flags))

    return parsed


def test_contenders_of_inference(args, tmp_path):
    case = inference.case_of(args('inference', '--threads', '3'), (1, 3, 32, 48), tmp_path)
    by_name = {one.name: one for one in case.contenders}
    assert not any('compile' in name or 'CUDA' in name for name in by_name)
    assert by_name['mmdet, eager'].same_as == 'mmdet'
    assert all(one.against == 'timm, eager' and one.same_as in case.references for one in case.contenders)
    runtime = by_name['our export, OpenVINO']
    assert runtime.options['threads'] == 3
    assert np.load(runtime.options['images']).shape == (1, 3, 32, 48)
    assert not runtime.ours
    assert by_name[inference.BEST].ours
    compiled = inference.case_of(args('inference', '--compile'), (1, 3, 32, 48), tmp_path)
    assert {one.name for one in compiled.contenders} - set(by_name) == {'timm, torch.compile', 'ours, torch.compile'}


def test_contenders_on_cuda(args, tmp_path):
    flags = args('inference', '--device', 'cuda', '--dtype', 'fp16')
    case = inference.case_of(flags, (1, 3, 32, 32), tmp_path)
    assert {'timm, CUDA graph, channels last', 'ours, optimized, CUDA graph'} <= {one.name for one in case.contenders}
    assert not any(one.keep_memory for one in case.contenders)
    assert all((one.options['device'], one.options['dtype']) == ('cuda', 'fp16') for one in case.contenders)
    assert case.bounds == {'feature': 5e-2}
    steps = training.case_of(args('training', '--device', 'cuda', '--dtype', 'bf16'), (2, 3, 64, 64), live=True)
    assert not any(one.keep_memory for one in steps.contenders)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['inference', '--arch', 'res2net51'], '--arch res2net51: choose from res2net50_48w_2s, '),
        (['inference', '--arch', 'res2net_dla60_4s'], '--arch res2net_dla60_4s: choose from'),
        (['inference', '--sizes', '224'], '--sizes 224: give height and width in pixels'),
        (['inference', '--batch', '0'], '--batch: choose 1 or more'),
        (['inference', '--repeats', '0'], '--repeats and --threads: choose 1 or more'),
        (['inference', '--turn', '0'], '--repeats and --threads: choose 1 or more; --turn: more than 0 seconds'),
        (['inference', '--dtype', 'fp16'], '--dtype fp16 is for --device cuda'),
        (['inference', '--plot', 'a.txt'], '--plot a.txt: choose a name that ends in one of .png'),
        (['inference', '--only', 'nobody'], '--only nobody: in no name of timm, eager;'),
        (['training', '--batch', '1'], '--batch: choose 2 or more'),
        (['training', '--arch', 'dla60'], '--arch dla60: choose from'),
    ],
)
def test_mistakes(flags, message, capsys):
    assert main(flags) == 2
    assert f'error: {message}' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['inference', 'training', 'model'])
@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_no_cuda_device(name, capsys):
    assert main([name, '--device', 'cuda']) == 2
    assert 'error: --device cuda: torch sees no CUDA device here; leave it out' in capsys.readouterr().err


def test_a_failed_measurement_is_one_error(monkeypatch, capsys):
    def fails(args: Namespace):
        raise common.MeasurementError('b ended with 3\nits last words:\nmy last words')

    monkeypatch.setattr(inference, 'run', fails)
    assert main(['inference']) == 1
    assert capsys.readouterr().err == 'error: b ended with 3\nits last words:\nmy last words\n'


def test_each_kind_of_run_has_its_section(args):
    def name(*flags):
        return common.section_name('inference', args('inference', *flags))

    assert name() == 'inference'
    assert name('--arch', 'res2next50_4s') == 'inference-res2next50_4s'
    assert name('--device', 'cuda', '--dtype', 'bf16') == 'inference-cuda-bf16'
    assert common.section_name('model-x', args('model')) == 'model-x'


def test_command_without_places():
    words = ['inference', '--json', 'a', '--only', 'a b', '--plot=x.png', '--page', 'c', '--compile']
    assert command(words) == "tools/benchmark.py inference --only 'a b' --compile"


# Runtimes


@pytest.mark.parametrize('runtime', [OnnxRuntime, OpenVino])
def test_runtimes_want_float32(runtime, tmp_path):
    pytest.importorskip('onnxruntime' if runtime is OnnxRuntime else 'openvino')
    options = {'folder': str(tmp_path), 'source': 'ours', 'kind': 'arch', 'arch': ARCH, 'images': '', 'threads': 1}
    with pytest.raises(MissingError, match='the export is in float32, not bf16'):
        runtime(**options, device='cpu', dtype='bf16')


def test_a_failed_export_says_why(tmp_path, monkeypatch):
    """The exporter itself runs in the slow tests."""
    done = SimpleNamespace(returncode=1, stderr='Traceback\n  ...\nMissingError: timm has no res2net152_26w_4s\n')
    asked = []
    monkeypatch.setattr(subprocess, 'run', lambda command, **_: asked.append(command) or done)
    with pytest.raises(MissingError, match=r'the export failed: .*timm has no res2net152_26w_4s'):
        exported(str(tmp_path), 'timm', 'arch', 'res2net152_26w_4s', (1, 3, 32, 32))
    assert asked[0][1:6] == ['-m', 'mmres2net.bench.exports', 'timm', 'arch', 'res2net152_26w_4s']
    assert asked[0][7:] == ['1', '3', '32', '32']
    assert list(tmp_path.iterdir()) == []


# CUDA, without a CUDA device: what is called in which order.


class Cuda:
    """Stands in for torch.cuda, with a clock of its own: each call of the function takes 5 milliseconds."""

    def __init__(self):
        self.log, self.now, self.held, self.peak = [], 0.0, 3 * 2**20, 0

    def Event(self, *, enable_timing):  # noqa: N802
        assert enable_timing
        event = SimpleNamespace(at=None, synchronize=lambda: self.log.append('wait'))
        event.record = lambda: (setattr(event, 'at', self.now), self.log.append('record'))
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def synchronize(self):
        self.log.append('synchronize')

    def reset_peak_memory_stats(self):
        self.peak = self.held

    def memory_allocated(self):
        return self.held

    def max_memory_allocated(self):
        return self.peak


def test_cuda_is_timed_by_events(monkeypatch):
    cuda = Cuda()
    monkeypatch.setattr(torch, 'cuda', cuda)
    meter = device.meter('cuda')
    assert isinstance(meter, CudaMeter)

    def call():
        cuda.log.append('call')
        cuda.now += 5.0

    assert meter.seconds(call, 2) == pytest.approx(0.010)
    assert cuda.log == ['synchronize', 'record', 'call', 'call', 'record', 'wait']
    meter.start_memory()
    cuda.peak = 10 * 2**20
    assert meter.peak_mib() == 7.0


def test_devices():
    check_device('cpu', 'bf16')
    with pytest.raises(UserError, match='--dtype fp16 is for --device cuda'):
        check_device('cpu', 'fp16')
    assert device.device_name('cpu') == ''

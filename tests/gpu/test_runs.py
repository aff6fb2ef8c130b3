"""Commands on a GPU: training in all its ways, predictions, exported files, class activation maps, the doctor."""

import socket
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger

from mmres2net import Predictor
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.engine.console import peak_memory
from tests.conftest import forget_visualizers
from tests.engine.demo import train_demo
from tests.engine.test_processes import by_torchrun
from tests.engine.test_profiling import PARTS, shares
from tests.stress.runs import CONFIGS, differences, outcome
from tests.support.cli import run_cli
from tests.support.exported import Exports, TinyModels

pytestmark = pytest.mark.gpu
SCENE = draw_scene(DEFAULT_SPEC, 'val', 1).image
EACH = pytest.mark.parametrize('name', ['detector', 'segmentor', 'classifier'])


def forget_runs() -> None:
    """MMEngine keeps what belongs to a run by a name that has seconds, and runs here are shorter."""
    forget_visualizers()
    for kind in (MMLogger, MessageHub):
        kind._instance_dict.clear()


def train(folder: Path, name: str, *flags: str) -> int:
    forget_runs()
    (folder / 'config.py').write_text(CONFIGS['numbers'](0))
    flags = ('--work-dir', folder / name, '--skip-data-check', '--resume', *flags)
    try:
        return run_cli('train', folder / 'config.py', *flags).status
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('flags', ['--batch auto', '--amp bf16', *['--amp fp16'] * torch.cuda.is_available()])
def test_training_a_detector(flags: str, device: str, shapes: Path, tmp_path: Path) -> None:
    forget_runs()
    done = train_demo(tmp_path, shapes, *flags.split())
    assert done.status == 0, done.err
    place = torch.cuda.get_device_name() if device == 'cuda' else 'CPU, threads'
    assert all(text in done.out + done.err for text in (place, 'memory '))
    assert device == 'cpu' or peak_memory() >= torch.cuda.max_memory_allocated() > 10**8
    content = torch.load(tmp_path / 'epoch_1.pth', map_location='cpu', weights_only=False)
    assert all(value.isfinite().all() for value in content['state_dict'].values())
    assert ('loss_scaler' in content['optimizer']) == flags.endswith('fp16')


def test_stopped_runs_end_as_an_uninterrupted_one(device: str, tmp_path: Path) -> None:
    assert train(tmp_path, 'whole', '--deterministic') == 0
    for _ in range(3):
        assert train(tmp_path, 'stopped', '--deterministic', '--max-minutes', '1e-9') == 75
    assert train(tmp_path, 'stopped', '--deterministic') == 0
    assert differences(outcome(tmp_path / 'whole'), outcome(tmp_path / 'stopped')) == []


def test_launcher_and_compiler_change_rounding_alone(device: str, tmp_path: Path, monkeypatch) -> None:
    """DistributedDataParallel over NCCL (on a CPU: gloo), and ``compile=True``."""
    monkeypatch.setattr(torch.nn.Dropout, 'forward', lambda self, x: x)  # a compiler draws other random numbers
    assert train(tmp_path, 'plain') == 0
    assert train(tmp_path, 'compiled', '--cfg-options', 'compile=True') == 0
    with socket.socket() as free:
        free.bind(('localhost', 0))
        variables = by_torchrun(0, free.getsockname()[1]) | {'WORLD_SIZE': '1', 'LOCAL_WORLD_SIZE': '1'}
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert train(tmp_path, 'launched', '--launcher', 'pytorch') == 0
    plain, *others = (outcome(tmp_path / name)['history']['train/loss'] for name in ('plain', 'compiled', 'launched'))
    for other in others:  # AdamW enlarges rounding in later steps
        np.testing.assert_allclose(other[:5], plain[:5], rtol=1e-3)


@EACH
def test_predictions_are_those_of_a_cpu(name: str, device: str, tiny_models: TinyModels) -> None:
    config, checkpoint = tiny_models[name]
    wanted = Predictor(checkpoint, config=config, device='cpu')(SCENE, score=0.1)
    for precision, tolerance in [(None, 1e-3), ('bf16', 0.1), *[('fp16', 0.02)] * (device == 'cuda')]:
        got = Predictor(checkpoint, config=config, device=device, precision=precision)(SCENE, score=0.1)
        if name == 'segmentor':
            assert (got['classes'] != wanted['classes']).mean() < tolerance
        else:  # of a detector the best ones: rounding decides which boxes are suppressed
            np.testing.assert_allclose(got['scores'][:3], wanted['scores'][:3], atol=tolerance)
        if name == 'detector' and precision is None:
            np.testing.assert_allclose(got['boxes'], wanted['boxes'], atol=0.1)


@EACH
def test_predict_and_cam(name: str, device: str, tiny_models: TinyModels, shapes: Path, tmp_path: Path) -> None:
    config, checkpoint = tiny_models[name]
    image, maps = min((shapes / 'val2017').iterdir()), []
    for where in ('cpu', device):
        flags = ('--device', where, '--out', tmp_path / where)
        assert run_cli('predict', checkpoint, image, '--config', config, *flags).status == 0
        if find_spec('pytorch_grad_cam'):
            assert run_cli('cam', config, checkpoint, '--images', image, '--arrays', *flags).status == 0
            maps.append(np.load(tmp_path / where / f'{image.stem}.npz')['maps'])
    assert all(np.allclose(one, maps[0], atol=1e-2) for one in maps)


@EACH
def test_exported_files_on_cuda(name: str, device: str, tiny_models: TinyModels, tmp_path: Path) -> None:
    runtime, provider = pytest.importorskip('onnxruntime'), f'{device.upper()}ExecutionProvider'
    if provider not in runtime.get_available_providers():
        pytest.skip(f'this onnxruntime has no {provider}: pip install onnxruntime-gpu')
    file = str(Exports(tiny_models, tmp_path)[f'{name}.onnx'])
    plain, session = (runtime.InferenceSession(file, providers=[one]) for one in ('CPUExecutionProvider', provider))
    assert session.get_providers()[0] == provider
    image = {session.get_inputs()[0].name: np.resize(SCENE, (1, 3, 97, 97))}
    for given, wanted in zip(session.run(None, image), plain.run(None, image), strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-2, atol=1e-2)


def test_profile(device: str, shapes: Path, tmp_path: Path) -> None:
    forget_runs()
    assert train_demo(tmp_path, shapes, '--profile', '3', '--batch', '1').status == 0
    assert set(found := shares((tmp_path / 'profile_train.txt').read_text())) > PARTS
    assert sum(value for name, value in found.items() if not name.startswith('a step')) == pytest.approx(100, abs=2)


def test_doctor(device: str) -> None:
    done = run_cli('doctor', *['--require', 'gpu', 'cuda'] * (device == 'cuda'))
    where = 'are right on cpu' + ', cuda:0' * (device == 'cuda')
    assert (done.status, where in done.out) == (0, True), done.out

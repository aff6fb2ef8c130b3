"""The switches of train and test: what each changes in a config, and what a run does with it."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from PIL import Image

from mmres2net.engine import switches
from mmres2net.engine.batch import GIB, Measured, batch_that_fits, fitting_batch
from mmres2net.engine.config import load_config
from mmres2net.engine.precision import BFloat16OptimWrapper, with_amp
from mmres2net.engine.resume import newest_start
from mmres2net.engine.switches import with_tta
from mmres2net.environment import computes_bfloat16
from mmres2net.errors import UserError
from tests.engine.demo import train_demo
from tests.engine.test_libraries import CLASSIFIER, make_pets
from tests.engine.test_training import saved, train
from tests.engine.tiny import weights, write_config
from tests.support.cli import run_cli


@pytest.fixture(autouse=True)
def _not_deterministic() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_runs_are_equal_to_the_bit(shapes: Path, trained_demo: Path, tmp_path: Path) -> None:
    for name in ('one', 'two'):
        done = train_demo(tmp_path / name, shapes, '--deterministic', '--seed', '3')
        assert (done.status, 'randomness.seed 0 -> 3' in done.out) == (0, True)
    one, two, other = (weights(f / 'epoch_1.pth') for f in (tmp_path / 'one', tmp_path / 'two', trained_demo))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_deterministic_run_has_a_seed() -> None:
    cfg, lines = switches.with_randomness(Config({}), None, deterministic=True)
    assert (cfg.randomness, len(lines)) == (dict(seed=0, deterministic=True), 2)
    assert switches.with_randomness(cfg, 7, deterministic=False)[0].randomness == dict(seed=7, deterministic=True)


def test_average_of_the_weights(folder: Path) -> None:
    every_step = dict(default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=1)
    assert train('--work-dir', 'plain', '--seed', '1', **every_step).status == 0
    assert train('--work-dir', 'ema', '--seed', '1', '--ema').status == 0
    average = weights('plain/iter_1.pth')['layer.weight']
    for step in range(1, 8):
        momentum = 10 / (10 + step)  # a mean over about a tenth of the steps
        average = average + momentum * (weights(f'plain/iter_{step + 1}.pth')['layer.weight'] - average)
    assert torch.allclose(weights('ema/epoch_2.pth')['layer.weight'], average, atol=1e-6)
    last = weights('ema/epoch_2.pth', 'ema_state_dict')['module.layer.weight']
    assert torch.equal(last, weights('plain/iter_8.pth')['layer.weight'])
    refused = train('--work-dir', 'ema', '--resume', train_cfg__max_epochs=3)
    assert (refused.status, '--ema' in refused.err) == (2, True)
    assert train('--work-dir', 'ema', '--resume', '--ema', train_cfg__max_epochs=3).status == 0


def test_early_stop_counts_on_in_a_resumed_run(folder: Path) -> None:
    flags, scores = ('--early-stop', '3'), '[0.1,0.5,0.5,nan,0.4,0.9]'
    options = dict(val_evaluator__scores=scores, default_hooks__checkpoint__save_best='auto')
    assert train(*flags, train_cfg__max_epochs=9, **options).status == 0
    assert max(saved() - {'best_score_epoch_2.pth'}) == 'epoch_5.pth'
    options = dict(options, default_hooks__checkpoint__rule='less', val_evaluator__scores='[0.3]')
    assert train('--work-dir', 'two', *flags, train_cfg__max_epochs=3, **options).status == 0
    assert train('--work-dir', 'two', *flags, '--resume', train_cfg__max_epochs=9, **options).status == 0
    # A count from nothing would end at epoch 7.
    assert max(saved(Path('two')) - {'best_score_epoch_1.pth'}) == 'epoch_4.pth'
    again = train('--work-dir', 'two', *flags, '--resume', train_cfg__max_epochs=9, **options)
    assert (again.status, max(saved(Path('two')) - {'best_score_epoch_1.pth'})) == (0, 'epoch_4.pth')


@pytest.mark.parametrize('unit', ['epochs', 'steps'])
def test_runs_that_are_out_of_time_again_and_again(folder: Path, unit: str) -> None:
    if unit == 'steps':
        loop = 'train_cfg = dict(by_epoch=False, max_iters=8, val_interval=4)\n'
        loop += "train_dataloader['sampler']['type'] = 'InfiniteSampler'\n"
        write_config(folder, loop + "default_hooks['checkpoint'] |= dict(by_epoch=False, interval=4)")
    at: list[int] = []
    while (done := train('--resume', '--max-minutes', '1e-9')).status == 75 and len(at) < 12:
        at.append(int(done.err.split('at step ')[1].split(';')[0]))
        assert newest_start(Path('work_dirs/tiny')).meta['iter'] == at[-1]
    # An evaluation follows steps 4 and 8, and is a turn of its own where steps are left.
    assert (done.status, at) == (0, [1, 2, 3, 4, 4, 5, 6, 7, 8])
    assert ('stopped' in done.err, 'last.pth' in saved()) == (False, False)
    content = torch.load(f'work_dirs/tiny/{"epoch_2" if unit == "epochs" else "iter_8"}.pth', weights_only=False)
    assert content['meta']['iter'] == 8
    assert len(content['message_hub']['log_scalars']['val/score'].data[0]) == 2  # both evaluations were made
    assert len(content['message_hub']['log_scalars']['train/loss'].data[0]) == 8


def test_stops_delete_no_checkpoint_that_the_config_keeps(folder: Path) -> None:
    options = dict(default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=1)
    stopped = [train('--resume', '--max-minutes', '1e-9', **options).status for _ in range(2)]
    assert (stopped, {'iter_1.pth', 'iter_2.pth'} <= saved()) == ([75, 75], True)


@pytest.mark.parametrize(('precision', 'cuda', 'bfloat16', 'kind'), [
    ('auto', True, False, 'AmpOptimWrapper'), ('fp16', True, True, 'AmpOptimWrapper'),
    ('auto', False, True, 'mmres2net.BFloat16OptimWrapper'), ('bf16', True, True, 'mmres2net.BFloat16OptimWrapper'),
    ('fp16', False, True, None), ('bf16', True, False, None), ('auto', False, False, None),
])  # fmt: skip
def test_precision_by_the_hardware(precision: str, cuda: bool, bfloat16: bool, kind: str | None) -> None:
    for own in ({}, dict(type='mmengine.OptimWrapper'), dict(type=OptimWrapper), dict(type='AmpOptimWrapper')):
        cfg = Config(dict(optim_wrapper=dict(own, clip_grad=None)))
        if kind is None:
            with pytest.raises(UserError):
                with_amp(cfg, precision, cuda=cuda, bfloat16=bfloat16)
            continue
        changed = with_amp(cfg, precision, cuda=cuda, bfloat16=bfloat16)[0].optim_wrapper
        scaled = dict(dtype='float16', loss_scale='dynamic') if kind == 'AmpOptimWrapper' else {}
        assert changed == dict(type=kind, clip_grad=None, **scaled)
        assert cfg.optim_wrapper == dict(own, clip_grad=None)


def test_losses_and_operators_of_mmcv_stay_in_float32() -> None:
    from mmcv.ops import RoIAlign
    from mmdet.models.losses import L1Loss

    layers = torch.nn.ModuleDict(dict(conv=torch.nn.Conv2d(1, 1, 1), pool=RoIAlign(2, aligned=True), loss=L1Loss()))
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(layers.parameters(), lr=0.1))
    with wrapper.optim_context(layers):
        features = layers['conv'](torch.rand(1, 1, 8, 8))
        pooled = layers['pool'](features, torch.tensor([[0, 0, 0, 7.03, 7.03]]))
        loss = layers['loss'](features, torch.zeros_like(features))
    wrapper.update_params(loss + pooled.sum())
    assert (features.dtype, pooled.dtype, loss.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.skipif(not computes_bfloat16(), reason='this processor does not compute in bfloat16')
def test_a_detector_learns_in_bfloat16(shapes: Path, trained_demo: Path, tmp_path: Path) -> None:
    assert train_demo(tmp_path, shapes, '--amp', '--seed', '1').status == 0
    exact, found = (weights(folder / 'epoch_1.pth') for folder in (trained_demo, tmp_path))
    apart = max((exact[name] - found[name]).abs().max().item() for name in exact if 'num_batches' not in name)
    assert 0 < apart < 0.1


@pytest.mark.parametrize('name', switches.WRITERS)
def test_writers(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WANDB_MODE', 'offline')
    Path(name).mkdir()  # such as Weights & Biases leaves behind; it is no package
    try:
        __import__(name).__version__  # noqa: B018
    except (ImportError, AttributeError):
        done = train(f'--{name}')
        assert (done.status, f'pip install {name}' in done.err) == (2, True)
        return
    assert train(f'--{name}').status == 0
    files = {'tensorboard': '*/vis_data/events.*', 'wandb': '*/vis_data/wandb/*/*.wandb'}[name]
    assert list(Path('work_dirs/tiny').glob(files))


def test_images_that_fit() -> None:
    found = Measured(free=10 * GIB, one=3 * GIB, two=4 * GIB, padding=1.25)
    assert batch_that_fits(found, 16)[0] == 4  # (8 - 2) / 1.25
    assert batch_that_fits(found, 3)[0] == 3
    with pytest.raises(UserError):
        batch_that_fits(found._replace(free=4 * GIB), 16)


def test_images_that_fit_by_steps_of_a_model(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = load_config('demo/faster_rcnn_r2n50', {'auto_scale_lr.base_batch_size': 3})
    for part in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        part.data_root = f'{shapes}/'
    batch, line = fitting_batch(cfg)
    assert (1 <= batch <= 3, 'GiB' in line) == (True, True)
    cfg.train_dataloader.dataset.data_root = 'absent'
    with pytest.raises(UserError, match='absent'):
        fitting_batch(cfg)
    # As a system out of memory does
    (tmp_path / 'ends_its_process.py').write_text('import os\nos.kill(os.getpid(), 9)')
    monkeypatch.syspath_prepend(tmp_path)
    cfg.custom_imports = dict(imports=['ends_its_process'])
    with pytest.raises(UserError, match='--batch 1'):
        fitting_batch(cfg)


def test_flipped_images_are_averaged(shapes: Path, tmp_path: Path) -> None:
    make_pets(shapes, tmp_path)
    config, mirrored = tmp_path / 'config.py', tmp_path / 'mirrored'
    config.write_text(CLASSIFIER)
    where = ('--data', tmp_path / 'pets', '--work-dir', tmp_path / 'run')
    assert run_cli('train', config, *where).status == 0
    for path in (tmp_path / 'pets').rglob('*.*'):
        target = (mirrored / path.relative_to(tmp_path / 'pets')).with_suffix('.png')
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(target)
    scores = []
    for flags in ((*where, '--tta'), where, ('--data', mirrored, '--work-dir', tmp_path / 'run')):
        out = ('--out', tmp_path / 'x.pkl')
        assert run_cli('test', config, tmp_path / 'run/iter_2.pth', *flags, *out).status == 0
        scores.append(np.stack([item['pred_score'].numpy() for item in pickle.loads(out[1].read_bytes())]))
    assert np.abs(scores[1] - scores[2]).max() > 1e-3
    assert np.allclose(scores[0], (scores[1] + scores[2]) / 2, atol=1e-4)


@pytest.mark.parametrize(('name', 'kind'), [
    ('faster_rcnn_r2n50', 'DetTTAModel'), ('deeplabv3plus_r2n50', 'SegTTAModel'),
    ('imagenet/res2net50_26w_4s', 'AverageClsScoreTTA'), ('mmdet::retinanet/retinanet_r50_fpn_1x_coco', 'DetTTAModel'),
    ('mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512', 'SegTTAModel'), ('mask_rcnn_r2n50', None), ('dss_r2n50', None),
])  # fmt: skip
def test_models_that_can_be_merged(name: str, kind: str | None) -> None:
    cfg = load_config(name)
    if kind is None:
        with pytest.raises(UserError):
            with_tta(cfg)
        return
    changed, _ = with_tta(cfg)
    assert (changed.model.type, changed.model.module) == (kind, cfg.model)
    assert changed.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'

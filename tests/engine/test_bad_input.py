"""Settings, flags and files that are wrong: one error that names them, exit status 2, nothing written."""

from pathlib import Path

import pytest
import torch

from tests.support.cli import run_cli

# Settings that the error names with their value.
VALUES = (
    'optim_wrapper.optimizer.lr=-1', 'optim_wrapper.optimizer.lr=0', 'optim_wrapper.optimizer.momentum=-1',
    'optim_wrapper.accumulative_counts=0', 'optim_wrapper.clip_grad.max_norm=-1', 'train_cfg=3',
    'train_cfg.max_epochs=0', 'train_cfg.max_epochs=1.5', 'train_cfg.max_epochs=True', 'train_cfg.val_interval=0',
    'train_cfg.max_iters=9', 'train_cfg.val_begin=-1', 'default_hooks.checkpoint.interval=0',
    'default_hooks.checkpoint.interval=-2', 'default_hooks.checkpoint.max_keep_ckpts=0',
    'default_hooks.finite_loss.patience=0', 'default_hooks.logger.interval=0', 'train_dataloader=3',
    'train_dataloader.batch_size=0', 'train_dataloader.num_workers=-1', 'val_dataloader.batch_size=0',
    'randomness.seed=-5', 'randomness.seed=1099511627776', 'auto_scale_lr.base_batch_size=0',
)  # fmt: skip
# Types and options that do not exist.
NO_TYPES = (
    'optim_wrapper.optimizer', 'optim_wrapper', 'param_scheduler', 'val_evaluator', 'train_dataloader.sampler',
    'train_dataloader.dataset', 'train_cfg', 'model',
)  # fmt: skip
NO_OPTIONS = ('optim_wrapper.optimizer', 'train_cfg', 'val_cfg', 'model')
REMOVED = ('optim_wrapper.optimizer', 'optim_wrapper', 'train_cfg', 'val_cfg', 'val_evaluator', 'model')
# Other settings, and what the error has to name.
SETTINGS = {
    **{setting: setting for setting in VALUES},
    **{f'{part}.type=Nope': 'Nope' for part in NO_TYPES},
    **{f'{part}.foo=1': 'foo' for part in NO_OPTIONS},
    **{f'{part}=None': part for part in REMOVED},
    'optim_wrapper.optimizer.lr=abc': "optim_wrapper.optimizer.lr='abc'",
    'optim_wrapper.optimizer.weight_decay=x': 'weight_decay',
    'optim_wrapper.optimizer={}': 'optim_wrapper.optimizer',
    'param_scheduler=3': 'cheduler',
    'custom_hooks=[3]': 'ook',
    'train_dataloader.dataset.length=0': 'empty',
    'train_dataloader.batch_size=64 train_dataloader.drop_last=True': 'train_dataloader.drop_last',
    'model=3': 'model',
    'model.width=-1': '-1',
    **{f'load_from={name}': name for name in ('absent.pth', 'tiny.py')},
    'train_cfg.max_epoch=3': 'train_cfg: ',
    'env_cfg.dist_cfg.timeout=soon': 'timeout',
    'runner_type=Nope': 'Nope',
    'activation_checkpointing=[nowhere]': 'nowhere',
}
FLAGS = {
    # the error names the last word
    **{
        flags: flags.split()[-1].removesuffix('=')
        for flags in (
            '--amp fp16', '--amp fp8', '--batch 0', '--batch x', '--early-stop 0', '--max-minutes 0', '--seed -1',
            '--seed 4294967296', '--backbone res2net51', '--data absent', '--data tiny.py', '--data=', '--resume=',
            '--cfg-options nothing', '--cfg-options =1', '--resume absent.pth', '--resume tiny.py', '--work-dir=',
        )
    },
    '--profile 0': '--profile',
    '--auto-scale-lr': 'base_batch_size',
    '--early-stop 2 --cfg-options default_hooks.checkpoint.save_best=None': 'save_best',
    '--early-stop 2 --cfg-options val_dataloader=None val_cfg=None val_evaluator=None': 'val_dataloader',
    '--amp bf16 --cfg-options optim_wrapper.type=ApexOptimWrapper': 'ApexOptimWrapper',
    '--batch 2 --cfg-options train_dataloader.sampler.batch_size=2': 'train_dataloader.sampler',
    '--cfg-options train_cfg.max_epochs.x=3': 'max_epochs', '--cfg-options model=dict(a=1,b=[2])': 'dict(a=1,b=[2])',
    '--launcher pytorch': 'RANK',
    '--resume .': 'checkpoint',
    '--work-dir tiny.py': '--work-dir tiny.py',
}  # fmt: skip
TEST_FLAGS = {
    **{name: name for name in ('absent.pth', 'tiny.py', 'list.pth', 'empty.pth', 'odd.pth', 'nan.pth')},
    'whole.pth --draw -3': '--draw',
    'whole.pth --tta': 'default_scope',
    'whole.pth --out x.txt': '--out x.txt',
    'whole.pth --out tiny.py/x.pkl': '--out tiny.py',
    'whole.pth --out x.pkl --profile': '--profile',
    'whole.pth --cfg-options test_dataloader=None': 'test_dataloader',
    'whole.pth --cfg-options test_evaluator=None': 'test_evaluator',
    'whole.pth --cfg-options test_dataloader.batch_size=0': 'test_dataloader.batch_size=0',
    'whole.pth --cfg-options model.width=3': 'layer.weight',
}


@pytest.fixture(autouse=True)
def _no_launcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)


def check(named: str, *args: str) -> None:
    done = run_cli(*args)
    assert (done.status, done.err.count('error: '), 'Traceback' in done.err) == (2, 1, False), done.err
    assert named in done.err
    assert not list(Path().glob('**/epoch_*.pth'))


@pytest.mark.parametrize('setting', SETTINGS)
def test_settings_of_training(setting: str) -> None:
    check(SETTINGS[setting], 'train', 'tiny.py', '--cfg-options', *setting.split())


@pytest.mark.parametrize('flags', FLAGS)
def test_flags_of_training(flags: str) -> None:
    check(FLAGS[flags], 'train', 'tiny.py', *flags.split())


@pytest.mark.parametrize('flags', TEST_FLAGS)
def test_flags_of_testing(flags: str) -> None:
    state = {'layer.weight': torch.ones(2, 2), 'layer.bias': torch.ones(2)}
    nan = {**state, 'layer.weight': torch.full((2, 2), torch.nan)}
    contents = {'list': [1], 'empty': {}, 'whole': state, 'odd': {'state_dict': [1]}, 'nan': {'state_dict': nan}}
    for name, content in contents.items():
        torch.save(content, f'{name}.pth')
    check(TEST_FLAGS[flags], 'test', 'tiny.py', *flags.split())


def test_the_config_itself_is_sound() -> None:
    assert run_cli('train', 'tiny.py').status == 0
    assert run_cli('test', 'tiny.py', 'work_dirs/tiny/epoch_2.pth', '--draw', '3', '--out', 'new/x.pkl').status == 0
    assert Path('new/x.pkl').stat().st_size > 0

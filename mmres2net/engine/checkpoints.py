"""Checkpoints that survive a kill, a power cut and a full disk.

A checkpoint is written beside its place, flushed to the disk and renamed; a checksum is put beside it; then the pointer
names it; only then are older checkpoints removed.
"""

import copy
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_world_size, is_main_process, master_only
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmres2net.engine.console import QuietRunner
from mmres2net.errors import RunError, UserError
from mmres2net.files import NO_SPACE, atomic_path, digest_of, write_atomic
from mmres2net.registry import HOOKS
from mmres2net.signals import worker_init

POINTER = 'last_checkpoint'  # MMEngine's file with the path of the newest checkpoint
LAST = 'last.pth'  # between those that the config asks for
CHECKSUM = '.sha256'
EVALUATED = 'evaluated_at'  # in the message hub: the step of the last evaluation
OWN = 'mmres2net.CheckpointHook'
ON_ERROR = ('continue', 'stop')


def with_checkpoints(cfg: Config) -> Config:
    """Return ``cfg`` with our checkpoint hook instead of MMEngine's; where there is none, it saves on a stop."""
    cfg, hooks = copy.deepcopy(cfg), cfg.get('default_hooks') or {}
    own = hooks.get('checkpoint', {})
    if own is None:
        own = {'type': 'CheckpointHook', 'interval': -1, 'save_last': False}
    kind = own.get('type', 'CheckpointHook')
    is_known = getattr(kind, '__name__', str(kind)).removeprefix('mmengine.') == 'CheckpointHook'
    cfg.default_hooks = {**hooks, 'checkpoint': {**own, 'type': OWN} if is_known else own}
    return cfg


def checksum_file(path: Path) -> Path:
    """Return the file with the checksum of a checkpoint, which ``sha256sum -c`` reads."""
    return path.with_name(path.name + CHECKSUM)


def read_checksum(path: Path) -> tuple[str, int | None]:
    """Return the noted checksum of a checkpoint, '' without one, and the step that it was written at."""
    try:
        words = checksum_file(path).read_text().split()
    except (OSError, UnicodeDecodeError):
        return '', None
    return (words[0], int(words[-1])) if len(words) > 2 and words[-1].isdecimal() else ('', None)


def remove_leftovers(folder: Path) -> None:
    """Remove parts of checkpoints, and checksums without their file, from a work dir whose lock the caller holds."""
    orphans = [path for path in folder.glob(f'*.pth{CHECKSUM}') if not path.with_suffix('').exists()]
    for path in [*folder.glob('.*.pth*.part'), *folder.glob(f'.{POINTER}*.part'), *orphans]:
        path.unlink(missing_ok=True)


class DurableRunner(QuietRunner):
    """Checkpoints are whole or absent, data workers leave signals to their process, a full disk does not stop a run."""

    _without_space: Sequence[Hook] = ()

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save as MMEngine does, but atomically and with a checksum; stores such as s3:// are left to MMEngine."""
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        target = Path(out_dir, filename)
        target.parent.mkdir(parents=True, exist_ok=True)
        meta = kwargs.setdefault('meta', {})
        with atomic_path(target) as draft:
            super().save_checkpoint(str(draft.parent), draft.name, *args, **kwargs)
            digest = digest_of(draft)
            checksum_file(target).unlink(missing_ok=True)  # it would be wrong for the new file
        write_atomic(checksum_file(target), f'{digest}  {target.name}\n# step {meta["iter"]}\n')

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader[Any]:
        """Build MMEngine's data loader, with workers that ignore the signals which end a run."""
        loader = Runner.build_dataloader(*args, **kwargs)
        loader.worker_init_fn = worker_init(loader.worker_init_fn)
        return loader

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks; what a hook cannot write because the disk is full is left out, with a warning."""
        for hook in self._hooks:
            try:
                getattr(hook, fn_name, lambda *args, **kwargs: None)(self, **kwargs)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                if hook not in self._without_space:
                    self._without_space = [*self._without_space, hook]
                    text = f'the disk is full: files of {type(hook).__name__} are left out'
                    print_log(text, 'current', logging.WARNING)


def is_accumulating(runner: Runner) -> bool:
    """Whether a run is between two updates of accumulated gradients."""
    return getattr(runner.optim_wrapper, '_accumulative_counts', 1) > 1 and not runner.optim_wrapper.should_update()


def average_gradients(runner: Runner) -> None:
    """Give all processes the mean of the gradients that they have accumulated: a checkpoint holds those of one."""
    if get_world_size() == 1 or not is_accumulating(runner):
        return
    parameters = list(runner.model.parameters())
    known = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
    all_reduce(known, 'max')
    for parameter in compress(parameters, known.tolist()):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        all_reduce(parameter.grad, 'mean')


class _Later:
    """A file backend that notes what it is told to remove."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.paths = backend, list[str]()
        self.remove = self.rmtree = self.paths.append

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['backend'], name)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's hook, which removes an older checkpoint only after the new one is on the disk.

    One more setting, ``on_write_error``: ``continue`` (default) warns if one cannot be written and trains on, but a run
    whose last one is missing ends with an error; ``stop`` ends the run at once.
    """

    file_backend: Any
    failed = False  # whether the newest checkpoint could not be written
    on_write_error = ON_ERROR[0]
    written: tuple[int, int | None] | None = None  # the step of the newest checkpoint, and of its last evaluation

    def before_train(self, runner: Runner) -> None:
        """Find the place of the checkpoints; a UserError if ``on_write_error`` is not one of the two."""
        self.on_write_error = self.args.pop('on_write_error', self.on_write_error)
        if self.on_write_error not in ON_ERROR:
            raise UserError(f'default_hooks.checkpoint.on_write_error={self.on_write_error!r}: {" or ".join(ON_ERROR)}')
        super().before_train(runner)
        self.written = self._now(runner, runner.iter) if runner.iter else None
        names = [name[4:] for name in runner.message_hub.log_scalars if name.startswith('val/') and 'time' not in name]
        if names and self.save_best and 'auto' in self.key_indicators:  # as at the first evaluation
            self._init_rule(self.rules, names[:1])

    def save_now(self, runner: Runner, step: int) -> None:
        """Save ``last.pth``, unless the newest checkpoint holds the same."""
        if self.written != self._now(runner, step):
            self._guard(runner, self._write, LAST, {'epoch': runner.epoch, 'iter': step})

    def after_train(self, runner: Runner) -> None:
        """Write the last checkpoint again if the evaluation after it is not in it; a RunError if it is not possible."""
        runner.message_hub._resumed_keys.pop('loop_stage', None)  # has ended; MMEngine would miss it in a resumed run
        now = self._now(runner, runner.iter)
        if self.failed or (self.written and self.written[0] == now[0] and self.written != now):
            self.on_write_error = 'stop'
            step = runner.epoch if self.by_epoch else runner.iter
            self._save_checkpoint_with_step(runner, step, {'epoch': runner.epoch, 'iter': runner.iter})
        super().after_train(runner)

    def _now(self, runner: Runner, step: int) -> tuple[int, int | None]:
        return step, runner.message_hub.runtime_info.get(EVALUATED)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        self._guard(runner, super()._save_best_checkpoint, metrics)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        self._guard(runner, self._save_periodic, step, meta)

    def _save_periodic(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        removed = [LAST]
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                removed.append(self.filename_tmpl.format(self.keep_ckpt_ids[0]))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._write(
            runner, self.filename_tmpl.format(step), meta, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, **self.args,
        )  # fmt: skip
        for name in removed:
            self.file_backend.remove(self.file_backend.join_path(self.out_dir, name))

    def _write(self, runner: Runner, name: str, meta: dict[str, Any], **options: Any) -> str:
        """Save a checkpoint, point at it, and return its path."""
        place = {'file_client_args': self.file_client_args, 'backend_args': self.backend_args}
        runner.save_checkpoint(self.out_dir, name, meta=meta, by_epoch=self.by_epoch, **place, **options)
        path = str(self.file_backend.join_path(self.out_dir, name))
        if is_main_process():
            write_atomic(Path(runner.work_dir) / POINTER, path)
        self.failed, self.written = False, self._now(runner, meta['iter'])
        return path

    def _guard(self, runner: Runner, save: Callable[..., Any], *args: Any) -> None:
        """Save by a method, and remove what it removes when that is done; if it fails nothing has changed."""
        average_gradients(runner)
        info, later = runner.message_hub.runtime_info, _Later(self.file_backend)
        before, own = dict(info), {k: copy.copy(v) if isinstance(v, dict | deque) else v for k, v in vars(self).items()}
        self.file_backend = later
        try:
            save(runner, *args)
        except OSError as error:
            info.clear()
            info.update(before)
            self.__dict__.update(own)
            self.failed |= save != super()._save_best_checkpoint  # training can be resumed without it
            text = f'a checkpoint cannot be written: {error.strerror or error}; those before it are kept'
            if self.on_write_error == 'stop':
                raise RunError(f'{text}. Make room and run the command again with --resume') from error
            return print_log(f'{text}, training continues', 'current', logging.WARNING)
        self.file_backend = backend = later.backend
        new = [value for value in info.values() if isinstance(value, str)]
        for path in later.paths if is_main_process() else ():
            if path in new or os.path.realpath(os.path.dirname(path)) != os.path.realpath(self.out_dir):
                continue  # it was written again, or is not of this run
            for file in (path, path + CHECKSUM):
                if backend.exists(file):  # FlexibleRunner writes folders
                    (backend.rmtree if backend.isdir(file) else backend.remove)(file)

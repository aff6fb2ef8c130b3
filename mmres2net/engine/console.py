"""The console of a run: what the run is, a line that follows it, its metrics, and what it wrote.

On the console are the messages that are meant for it, and warnings and errors, except warnings that every run has.
"""

import logging
import math
import resource
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.live import Live
from rich.text import Text

from mmres2net.engine.build import unwrapped
from mmres2net.files import size_text
from mmres2net.notices import write_to
from mmres2net.registry import HOOKS
from mmres2net.text import format_table, join_some, metric_table, overall, value_text

SECONDS = {'plain': 30.0, 'rich': 0.2}  # between two lines, between two changes of the live line
NOTES, NOTES_OF_KIND = 8, 2  # that are shown on the console; those of one flag begin alike
NOTES_TITLE = 'notes on this run:'
KEPT = ('resumed epoch', 'evaluated on')  # other messages that are shown
# Accumulated gradients are in the checkpoint.
USUAL = (
    'Failed to search registry with scope', 'The prefix is not set in metric', '"FileClient" will',
    'Resumed iteration number is not divisible', '"HardDiskBackend" is', '`save_param_scheduler` is',
)  # fmt: skip


def say(text: str, short: str = '') -> None:
    """Log a message that is also for the console, there perhaps in a ``short`` form."""
    MMLogger.get_current_instance().info(text, extra={'console': short or text})


def log_notes(notes: Sequence[str]) -> None:
    """Log what the flags changed, and what the user should know; the first ones of each kind are for the console."""
    kinds = [note.partition(': ')[0] for note in notes]
    shown = [note for i, note in enumerate(notes) if kinds[:i].count(kinds[i]) < NOTES_OF_KIND][:NOTES]
    more = [f'and {len(notes) - len(shown)} more in the log file'] if len(shown) < len(notes) else []
    if notes:
        say('\n  '.join([NOTES_TITLE, *notes]), '\n  '.join([NOTES_TITLE, *shown, *more]))


class ConsoleHandler(logging.Handler):
    """Prints the records of a logger that are for the console."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record that was logged by :func:`say`, or that warns of something unusual."""
        message = record.getMessage()
        text = getattr(record, 'console', message if message.startswith(KEPT) else '')
        if not text and record.levelno >= logging.WARNING and not message.startswith(USUAL):
            text = f'{record.levelname.lower()}: {message}'
        if text:
            self.console.print(text)


class QuietRunner(Runner):
    """MMEngine's runner with our handler of the console."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Return MMEngine's logger; its file also gets what libraries said before it was there."""
        logger = super().build_logger(*args, **kwargs)
        use_console(logger)
        return logger


def use_console(logger: MMLogger) -> ConsoleHandler | None:
    """Replace MMEngine's handler of the console by ours, and return it; None in all processes but the first."""
    if not is_main_process():
        return None
    ours = [handler for handler in logger.handlers if isinstance(handler, ConsoleHandler)] or [ConsoleHandler()]
    files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    logger.handlers[:] = [*ours, *files]
    write_to(files[0] if files else None)
    return ours[0]


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Say on the console what a run is, where it is, what it reached and what it wrote.

    ``rich`` is one line that changes, ``plain`` a line at the first step and every 30 seconds; None: by the terminal.
    """

    priority = 'LOWEST'

    def __init__(self, *, style: str | None = None) -> None:
        self.style = style
        self._handler: ConsoleHandler | None = None
        self._live: Live | None = None
        self._began, self._shown = time.time(), 0.0

    def before_run(self, runner: Runner) -> None:
        self._handler, self._began = use_console(runner.logger), time.time()
        if self._handler is not None and self.style is None:
            self.style = 'rich' if self._handler.console.is_terminal else 'plain'

    def before_train(self, runner: Runner) -> None:
        say(format_table([*_overview(runner, 'train'), *_schedule(runner), *_places(runner)]))

    def before_test(self, runner: Runner) -> None:
        say(format_table([*_overview(runner, 'test'), *_places(runner)]))

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        hub, steps = runner.message_hub, len(getattr(runner, f'{mode}_dataloader'))
        if mode != 'train':
            name = 'evaluation' if mode == 'val' else mode
            self._show(runner, [f'{name}: batch {batch_idx + 1}/{steps}'])
            return
        place = f'step {runner.iter + 1}/{runner.max_iters}'
        if _by_epoch(runner):
            place = f'epoch {runner.epoch + 1}/{runner.max_epochs}  step {batch_idx + 1}/{steps}'
        names = [name for name in ('loss', 'lr') if f'train/{name}' in hub.log_scalars]
        values = [f'{name} {hub.get_scalar(f"train/{name}").current():.4g}' for name in names]
        self._show(runner, [place, *values])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        title = f'evaluation at epoch {runner.epoch}, step {runner.iter}'
        say(metric_table(overall(metrics or {}, _classes(runner.val_dataloader)), title))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        say(metric_table(metrics or {}, 'metrics of the test split'))

    def after_run(self, runner: Runner) -> None:
        self.close()
        lines = _reached(runner) if runner.message_hub.runtime_info.get('max_iters') else []
        lines.append(f'time: {timedelta(seconds=int(time.time() - self._began))}')
        paths = [path for path in sorted(Path(runner.work_dir).iterdir()) if path.stat().st_mtime >= int(self._began)]
        names = [path.name + '/' * path.is_dir() for path in paths if path.suffix != '.sha256' and path.name[0] != '.']
        say('\n'.join([*lines, f'written to {runner.work_dir}: {join_some(names, limit=30)}']))

    def close(self) -> None:
        """Remove the live line."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, runner: Runner, parts: Sequence[str]) -> None:
        """Print where the run is, if it is time for it."""
        if self._handler is None or time.monotonic() - self._shown < SECONDS[self.style or 'plain']:
            return
        self._shown = time.monotonic()
        eta = runner.message_hub.runtime_info.get('eta')
        left = [f'left {timedelta(seconds=int(eta))}'] if eta is not None else []
        line = '  '.join([*parts, *left, f'memory {size_text(peak_memory())}'])
        if self.style != 'rich':
            self._handler.console.print(line)
            return
        if self._live is None:
            self._live = Live(console=self._handler.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Text(line, no_wrap=True, overflow='ellipsis'), refresh=True)


def peak_memory() -> int:
    """Return the largest memory of this process so far in bytes, on the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def _by_epoch(runner: Runner) -> bool:
    return 'max_epochs' in (runner.cfg.get('train_cfg') or {})


def _classes(loader: Any) -> Sequence[str]:
    classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
    return classes if isinstance(classes, list | tuple) else ()


def _overview(runner: Runner, mode: str) -> list[tuple[str, str]]:
    """Return the data, the model and the device of a run, as rows of a table."""
    model, loader = unwrapped(runner.model), runner.train_dataloader if mode == 'train' else runner.test_dataloader
    data = f'{len(loader.dataset):,} {mode} images'
    if mode == 'train' and runner.val_loop is not None:
        data += f', {len(runner.val_dataloader.dataset):,} val images'
    if classes := _classes(loader):
        data += f'; {len(classes)} classes: {join_some(classes)}'
    backbone = (runner.cfg.get('model') or {}).get('backbone') or {}
    kind = ' '.join(str(backbone[key]).split('.')[-1] for key in ('type', 'arch', 'depth') if key in backbone)
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad or not trained) / 1e6 for trained in (0, 1)]
    size = f'{counts[0]:.1f} M parameters, {counts[1]:.1f} M of them trained'
    device = next((p.device for p in model.parameters()), torch.device('cpu'))
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else f'CPU, threads: {torch.get_num_threads()}'
    network = ', '.join(part for part in (type(model).__name__, kind, size) if part)
    return [('data', data), ('model', network), ('device', f'{get_world_size()} x {name}')]


def _schedule(runner: Runner) -> list[tuple[str, str]]:
    wrapper, loader = runner.cfg.get('optim_wrapper') or {}, runner.train_dataloader
    counts = runner.cfg.train_dataloader.get('batch_size', 1), get_world_size(), wrapper.get('accumulative_counts', 1)
    batch = '{} images a step = {} x {} processes x {} accumulated'.format(math.prod(counts), *counts)
    length = f'epochs: {runner.max_epochs} of {len(loader)} steps' if _by_epoch(runner) else f'{runner.max_iters} steps'
    optimizer = wrapper.get('optimizer') or {}
    rate, groups = optimizer.get('lr'), getattr(runner.optim_wrapper, 'param_groups', None)
    if runner.iter and isinstance(groups, list):  # a checkpoint brings its own; the last one is without multipliers
        rate = groups[-1].get('initial_lr', groups[-1].get('lr'))
    done = f', {runner.iter} steps are done' if runner.iter else ''
    return [('batch', batch), ('schedule', f'{length}, {optimizer.get("type")} with lr={rate}{done}')]


def _places(runner: Runner) -> list[tuple[str, str]]:
    return [('work dir', str(runner.work_dir)), ('log file', str(runner.logger.log_file))]


def _reached(runner: Runner) -> list[str]:
    """Return the last metrics of a training, and its checkpoints."""
    hub, lines = runner.message_hub, ['']
    last = {name[4:]: one.data[0][-1] for name, one in hub.log_scalars.items() if name.startswith('val/')}
    last |= {name[4:]: value for name, value in hub.runtime_info.items() if name.startswith('val/')}
    shown = overall(last, _classes(runner.train_dataloader))
    lines.append(metric_table({k: v for k, v in shown.items() if k not in ('time', 'data_time')}, 'last evaluation'))
    for hook in [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.save_best]:
        for key in hook.key_indicators:
            suffix = f'_{key}' if len(hook.key_indicators) > 1 else ''
            path, score = (hub.runtime_info.get(f'{name}{suffix}') for name in ('best_ckpt', 'best_score'))
            lines += [f'best checkpoint: {path} ({key} {value_text(score)})'] if path else []
    kept = sorted((path.stat().st_mtime_ns, path) for path in Path(runner.work_dir).glob('[!b]*.pth'))
    if kept:
        before = f'; before it: {join_some([path.name for _, path in kept[:-1]])}' if len(kept) > 1 else ''
        lines.append(f'last checkpoint: {kept[-1][1]}{before}')
    return [*lines, f'checkpoints and logs: {runner.work_dir}/']

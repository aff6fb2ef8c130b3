"""``--profile``: where the time of a training step or a test image goes, measured by ``torch.profiler``."""

import sys
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import profile, record_function

from mmres2net.engine.build import unwrapped, wrappers_of
from mmres2net.engine.console import say
from mmres2net.registry import HOOKS
from mmres2net.text import format_table

WARM_UP, OPERATORS = 3, 10
# torch's own records, and how the table calls them.
RECORDED = {'enumerate(DataLoader)': 'waiting for data', 'Optimizer.': 'optimizer'}


class ProfileDone(Exception):  # noqa: N818 - it ends a run and is no error
    """The profile is written, and the run ends here."""


@HOOKS.register_module()
class ProfileHook(Hook):
    """Profile ``steps`` steps after a few for warming up, write the tables ``WORK_DIR/profile_*.txt``, and stop.

    ProfileDone is raised after the last step, or at the end of a shorter run.
    """

    def __init__(self, *, steps: int = 20) -> None:
        self.steps, self._done = steps, 0

    def before_train(self, runner: Runner) -> None:
        runner.train_loop.val_begin = sys.maxsize  # no evaluation between the steps
        for wrapper in wrappers_of(runner):
            record(wrapper, 'backward', 'backward')
        self._begin(runner, 'train')

    def before_test(self, runner: Runner) -> None:
        record(runner.test_loop.evaluator, 'process', 'evaluation')
        self._begin(runner, 'test')

    def _begin(self, runner: Runner, mode: str) -> None:
        self._mode, self._profiler = mode, profile(record_shapes=True)
        for name, child in unwrapped(runner.model).named_children():
            for module in child if isinstance(child, nn.ModuleList) else [child]:
                is_head = hasattr(module, 'predict') or hasattr(module, 'loss')  # not called by forward
                for method in ('loss', 'predict', 'loss_and_predict') if is_head else ('forward',):
                    record(module, method, name)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._done += 1
        if self._done == WARM_UP:
            self._profiler.start()
            self._since = _now()
        elif self._done == WARM_UP + self.steps:
            self.after_train(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the profile, also of a run that was too short, and end the run."""
        steps, text = self._done - WARM_UP, f'the run was too short: it must have more than {WARM_UP} steps'
        if steps >= 0:
            total = 1000 * (_now() - self._since)
            self._profiler.stop()
            text = tables(self._profiler, total, steps) if steps else text
        if is_main_process():
            path = Path(runner.work_dir) / f'profile_{self._mode}.txt'
            path.write_text(text + '\n', encoding='utf-8')
            say(f'{text}\nwritten: {path}; nothing was trained, evaluated or saved')
        raise ProfileDone

    after_test_iter, after_test = after_train_iter, after_train


def record(owner: Any, method: str, name: str) -> None:
    """Let the profiler record calls of ``owner.method``, if there is one, as ``part: NAME``."""
    call = getattr(owner, method, None)
    if callable(call):
        wrapped = wraps(call)(record_function(f'part: {name}')(call))
        object.__setattr__(owner, method, wrapped)


def tables(profiler: Any, total: float, steps: int) -> str:
    """Return the time of the parts of the model in ``steps`` steps of ``total`` ms, and the longest operators."""
    spent: dict[str, float] = {}
    events = profiler.key_averages()  # also a GPU's of the same
    for event in (one for one in events if one.device_type == DeviceType.CPU):
        for prefix, name in {**RECORDED, 'part: ': event.key.removeprefix('part: ')}.items():
            if event.key.startswith(prefix):
                spent[name] = spent.get(name, 0) + max(event.cpu_time_total, event.device_time_total) / 1000
    spent['other'] = max(total - sum(spent.values()), 0)
    rows = [(f'{ms / steps:.2f}', f'{ms / total:.1%}', name) for name, ms in sorted(spent.items(), key=lambda x: -x[1])]
    rows.append((f'{total / steps:.2f}', '100.0%', f'a step; {steps} steps, {torch.get_num_threads()} threads'))
    sort = f'self_{"cuda" if torch.cuda.is_available() else "cpu"}_time_total'
    operators = profiler.key_averages(group_by_input_shape=True).table(sort_by=sort, row_limit=OPERATORS)
    return f'{format_table(rows, ("ms per step", "share", "part"))}\n{operators}'


def _now() -> float:
    from torch.utils.benchmark.utils.timer import timer  # waits for a GPU; slow to import

    return timer()

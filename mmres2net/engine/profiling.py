"""``--profile``: where the time of a training step or a test image goes, by part of the model and by operator."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.autograd.profiler import profile

from mmres2net.registry import HOOKS

STEPS, WARM_UP, OPERATOR_STEPS, OPERATORS = 20, 3, 2, 10
WAITING, OTHER, POST = 'waiting for data', 'other', 'post-processing'
# How the hosts call the parts of a model: heads by their own methods, all else by forward.
CALLS = ('forward', 'loss', 'predict', 'loss_and_predict')
NOTHING_DONE = 'profile only: nothing was trained, evaluated or saved'

Row = dict[str, Any]


class ProfileDone(Exception):  # noqa: N818 - it ends a run and is no error
    """The profile is complete and written; the run ends here."""


class Stopwatch:
    """Time by part; the time of a part that runs inside of another counts for the inner one alone."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._synchronise, self._stack = synchronise, [OTHER]
        self._since = time.perf_counter()

    def book(self) -> None:
        """Book what went by for the running part."""
        self._synchronise()
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def start(self, part: str) -> None:
        """Book what went by, and let the clock run for ``part``."""
        self.book()
        self.calls[part] += part not in self._stack
        self._stack.append(part)

    def stop(self) -> None:
        """Book the running part, and go back to the one around it."""
        self.book()
        self._stack.pop()

    def reset(self) -> None:
        """Forget all that was booked."""
        self.book()
        self.seconds.clear()
        self.calls.clear()


class Timers:
    """Timers around methods of objects, set as attributes of these objects and taken away again."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        # With what the object itself had there before: schedulers count an optimizer's steps that way.
        self._set: dict[tuple[int, str], tuple[Any, Any]] = {}

    def add(self, owner: Any, method: str, part: str) -> None:
        """Book the time inside of ``owner.method`` for ``part``, the first time it is asked for.

        Nothing is done where there is no such method.
        """
        call = getattr(owner, method, None)
        if not callable(call) or (id(owner), method) in self._set:
            return

        @wraps(call)  # also what a scheduler has noted on it
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._watch.start(part)
            try:
                return call(*args, **kwargs)
            finally:
                self._watch.stop()

        self._set[id(owner), method] = owner, vars(owner).get(method)
        object.__setattr__(owner, method, timed)

    def remove(self) -> None:
        """Leave the objects as they were."""
        for (_, method), (owner, before) in self._set.items():
            if before is None:
                object.__delattr__(owner, method)
            else:
                object.__setattr__(owner, method, before)
        self._set.clear()


@HOOKS.register_module()
class ProfileHook(Hook):
    """Measure the parts of some steps after a few for warming up, then the operators of two more, and end the run.

    The table goes to the log, and as JSON into ``WORK_DIR/profile_train.json`` or ``profile_test.json``.

    Args:
        steps: Number of measured steps.

    Raises:
        ProfileDone: After the last step.
    """

    priority = 'VERY_LOW'  # behind all others, so that their time is booked for the step

    def __init__(self, *, steps: int = STEPS) -> None:
        self.steps = steps
        self._done = 0
        self._profiler: Any = None

    def before_train(self, runner: Runner) -> None:
        # By iterations, the evaluation would come between the steps.
        runner.train_loop.val_begin = sys.maxsize
        self._begin(runner, 'train')

    def before_test(self, runner: Runner) -> None:
        self._begin(runner, 'test')

    def _begin(self, runner: Runner, mode: str) -> None:
        self._mode, self._rows = mode, list[Row]()
        device = next(runner.model.parameters()).device
        self._device = device
        self._watch = Stopwatch(torch.cuda.synchronize if device.type == 'cuda' else lambda: None)
        self._timers = Timers(self._watch)
        for owner, method, part in parts_of(runner, mode):
            self._timers.add(owner, method, part)
        self._watch.start(WAITING)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._watch.stop()

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._watch.stop()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._step_done(runner)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._step_done(runner)

    def after_train(self, runner: Runner) -> None:
        self._finish(runner)

    def after_test(self, runner: Runner) -> None:
        self._finish(runner)

    def _step_done(self, runner: Runner) -> None:
        self._done += 1
        if self._done == WARM_UP:
            self._watch.reset()
        elif self._done == WARM_UP + self.steps:
            self._watch.book()
            self._rows = part_rows(self._watch, self.steps)
            self._start_operators()
        elif self._done == WARM_UP + self.steps + OPERATOR_STEPS:
            self._finish(runner)
        self._watch.start(WAITING)

    def _start_operators(self) -> None:
        self._timers.remove()
        device = 'cuda' if self._device.type == 'cuda' else None
        self._profiler = profile(use_device=device, record_shapes=True)
        self._profiler.__enter__()

    def _finish(self, runner: Runner) -> None:
        """Write what there is, of a run that was too short as well."""
        self._timers.remove()
        operator_steps = self._done - WARM_UP - self.steps
        operators = []
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            operators = operator_rows(self._profiler.key_averages(group_by_input_shape=True), max(operator_steps, 1))
        steps = min(self._done - WARM_UP, self.steps)
        rows = self._rows or (part_rows(self._watch, steps) if steps > 0 else [])
        if is_main_process():
            self._report(runner, rows, operators, max(steps, 0))
        raise ProfileDone

    def _report(self, runner: Runner, rows: list[Row], operators: list[Row], steps: int) -> None:
        content = {
            'mode': self._mode,
            'device': str(self._device),
            'threads': torch.get_num_threads(),
            'batch_size': runner.cfg[f'{self._mode}_dataloader'].get('batch_size', 1),
            'steps': steps,
            'parts': rows,
            'operators': operators,
        }
        path = Path(runner.work_dir) / f'profile_{self._mode}.json'
        path.write_text(json.dumps(content, indent=1) + '\n')
        print_log('\n' + tables(content), 'current')
        print_log(f'{NOTHING_DONE}; the same figures: {path}', 'current')


def parts_of(runner: Runner, mode: str) -> Iterator[tuple[Any, str, str]]:
    """Yield (object, method, name of the part): the direct children of the model, optimizer, evaluator."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if mode == 'test':
        for name, module in model.named_modules():
            if not name.endswith('rpn_head'):  # what it predicts are proposals, no results
                yield module, 'predict_by_feat', POST
        yield from ((model, method, POST) for method in ('add_pred_to_datasample', 'postprocess_result'))
        yield runner.test_loop.evaluator, 'process', 'evaluation'
    else:
        wrapper = runner.optim_wrapper
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            yield one, 'backward', 'backward'
            yield from ((one, method, 'optimizer step') for method in ('step', 'zero_grad'))
    for name, child in model.named_children():
        for module in child if isinstance(child, nn.ModuleList) else [child]:
            yield from ((module, method, name) for method in CALLS)


def part_rows(watch: Stopwatch, steps: int) -> list[Row]:
    """Return a row for each part, the longest first; the shares add up to 1."""
    total = sum(watch.seconds.values())
    rows = [
        {
            'part': part,
            'ms_per_step': 1000 * seconds / steps,
            'share': seconds / total,
            'calls_per_step': watch.calls[part] / steps if part != OTHER else None,
        }
        for part, seconds in watch.seconds.items()
    ]
    return sorted(rows, key=lambda row: -row['share'])


def operator_rows(events: Any, steps: int) -> list[Row]:
    """Return the operators that took the most time themselves, of the GPU if it was used."""
    device = sum(event.self_device_time_total for event in events) > 0
    times = [(event.self_device_time_total if device else event.self_cpu_time_total, event) for event in events]
    total = sum(spent for spent, _ in times) or 1
    rows = [
        {
            'operator': event.key,
            'shapes': [shape for shape in event.input_shapes if shape],
            'ms_per_step': spent / 1000 / steps,
            'share': spent / total,
            'calls_per_step': event.count / steps,
        }
        for spent, event in times
    ]
    return sorted(rows, key=lambda row: -row['share'])[:OPERATORS]


def tables(content: Mapping[str, Any]) -> str:
    """Return the profile as text."""
    if not content['parts']:
        return f'profile: the run ended before a step was measured: it has to have more than {WARM_UP} steps'
    head = '{steps} steps of {batch_size} images on {device}, {threads} CPU threads'.format(**content)
    lines = [f'profile of {content["mode"]}: {head}', _line('ms a step', 'share', 'calls', 'part')]
    lines += [_row_line(row, row['part']) for row in content['parts']]
    lines.append(_line(f'{sum(row["ms_per_step"] for row in content["parts"]):.2f}', '100.0%', '', 'a step'))
    if content['operators']:
        lines += ['the longest operators, without what they call', _line('ms a step', 'share', 'calls', 'operator')]
        lines += [_row_line(row, f'{row["operator"]} {row["shapes"]}') for row in content['operators']]
    return '\n'.join(lines)


def _row_line(row: Row, name: str) -> str:
    calls = '' if row['calls_per_step'] is None else f'{row["calls_per_step"]:g}'
    return _line(f'{row["ms_per_step"]:.2f}', f'{row["share"]:.1%}', calls, name)


def _line(time_: str, share: str, calls: str, name: str) -> str:
    return f'{time_:>12} {share:>8} {calls:>7}  {name}'

"""Where a run starts in its work dir: at the newest checkpoint that can be read, or anew in a dir without any."""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmengine.config import Config

from mmres2net.engine.checkpoints import EVALUATED, POINTER, checksum_file, read_checksum
from mmres2net.engine.embedded import saved_config
from mmres2net.engine.exact import POSITION
from mmres2net.engine.launcher import Group, from_first_process
from mmres2net.engine.settings import SEED, value_at
from mmres2net.errors import UserError
from mmres2net.files import digest_of, locked
from mmres2net.text import join_some
from mmres2net.weights.loading import check_finite
from mmres2net.weights.reading import read_checkpoint, unwrap

T = TypeVar('T')
CHECKPOINT = re.compile(r'(epoch|iter|last)(?:_(\d+))?\.pth')
COPY = '.resumed.pth'  # of the checkpoint of the first process, on a machine that cannot read it
BEST = 'best_*.pth'
NEEDED = ('meta', 'message_hub', 'state_dict')
HUB = ('log_scalars', 'runtime_info', 'resumed_keys')
# Settings that come back from the checkpoint, whatever the config of the new run says.
RESTORED = ('optim_wrapper.optimizer', 'optim_wrapper.paramwise_cfg', 'param_scheduler', 'randomness.seed')


class Start(NamedTuple):
    """A checkpoint to resume from, in a form that another process can be told."""

    path: Path
    meta: dict[str, Any]  # what MMEngine notes in it
    parts: tuple[str, ...]  # the names of what it holds
    evaluated: int | None  # the step of its last evaluation if that is known
    notes: list[str]  # for the user


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of training in ``folder``, the newest first, by their numbers, steps or times."""
    found = {path: match for path in folder.glob('*.pth') if (match := CHECKPOINT.fullmatch(path.name))}
    order: dict[Path, float | None] = {path: int(match[2] or 0) for path, match in found.items()}
    if len({match[1] for match in found.values()}) > 1:  # numbers of epochs and of iterations do not compare
        order = {path: read_checksum(path)[1] for path in found}
    if None in order.values():
        order = {path: path.stat().st_mtime for path in found}
    return sorted(found, key=lambda path: order[path] or 0, reverse=True)


def newest_start(folder: Path, *, allow_pickle: bool = False) -> Start | None:
    """Return the newest checkpoint of a work dir that training can be resumed from; None where there are none.

    The one that ``last_checkpoint`` names comes first. If it is not there or damaged the next newest is taken, and the
    notes say so. A UserError says that none can be read.
    """
    named, notes = _pointed_at(folder)
    faults: list[str] = []
    for path in dict.fromkeys([*named, *checkpoints_in(folder)]):
        try:
            start = read_start(path, allow_pickle=allow_pickle)
            notes += [f'not resumed from the newest checkpoint: {fault}' for fault in faults]
            return start._replace(notes=notes)
        except UserError as error:
            faults.append(str(error))
    if not faults:
        return None
    listed = join_some(faults, sep='\n  ')
    text = f'--resume: no checkpoint in {folder} can be resumed from:\n  {listed}\n'
    raise UserError(f'{text}name another one with --resume CHECKPOINT, or start anew with --overwrite')


def same_start(choose: Callable[[], T], folder: Path, *, allow_pickle: bool, first_here: bool) -> T | Start:
    """Return what the first process chooses to start from; machines without that file get a copy in ``folder``."""
    start, group = from_first_process(choose), Group.current
    if not isinstance(start, Start) or group is None:
        return start
    mine: Path | None = None
    for asks in (first_here, True):  # after the first process of each machine those that have a disk of their own
        mine = next((path for path in (start.path, folder / COPY) if _is_same(start, path, allow_pickle)), None)
        group.copy(start.path, folder / COPY, wanted=asks and mine is None)
    return start._replace(path=mine or folder / COPY)


def _is_same(start: Start, path: Path, allow_pickle: bool) -> bool:
    try:
        meta = read_start(path, allow_pickle=allow_pickle).meta
    except (UserError, OSError):
        return False
    return all(meta.get(name) == start.meta.get(name) for name in ('epoch', 'iter', 'time', 'experiment_name'))


def _pointed_at(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the checkpoint that ``last_checkpoint`` names, and a note where it names none that is there."""
    pointer = folder / POINTER
    text = pointer.read_bytes()[:4096].decode(errors='replace').replace('\0', '').strip() if pointer.is_file() else ''
    beside = folder / Path(text).name  # a work dir that was moved or copied still names its old place
    if beside.is_file():
        return [beside], []
    if checkpoints_in(folder):
        return [], [f'{pointer} names no checkpoint that is there; taking the newest one in {folder}']
    return [Path(text)] if text else [], []


def read_start(path: Path, *, allow_pickle: bool = False) -> Start:
    """Return a checkpoint that training can be resumed from; a UserError if it is damaged or lacks what that needs."""
    noted = read_checksum(path)[0]
    if noted and path.is_file() and digest_of(path) != noted:
        raise UserError(f'{path} is damaged: its checksum is not that of {checksum_file(path).name}')
    content = read_checkpoint(path, allow_pickle=allow_pickle)
    missing = [key for key in NEEDED if not isinstance(content.get(key), Mapping)]
    if missing:
        raise UserError(
            f'{path} has no {", ".join(missing)}, so training cannot be resumed from it; to start from its weights: '
            f'--cfg-options load_from={path}'
        )
    meta, hub = content['meta'], content['message_hub']
    wrong = [f'meta.{name}={meta.get(name)!r}' for name in ('epoch', 'iter') if not SEED.test(meta.get(name))]
    wrong += [f'meta.seed={meta["seed"]!r}'] if not SEED.test(meta.get('seed') or 0) else []
    wrong += [f'message_hub.{part}' for part in HUB if not isinstance(hub.get(part), Mapping)]
    if wrong:
        raise UserError(f'{path} is not a checkpoint of MMEngine, or it is damaged: {", ".join(wrong)}')
    rates = [group.get('lr') for group in groups_of(content.get('optimizer'))]
    if not all(math.isfinite(rate) for rate in rates if isinstance(rate, int | float)):
        raise UserError(f'{path} has a learning rate that is not finite: use an earlier checkpoint')
    try:
        check_finite(unwrap(content, key='state_dict'))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    evaluated = hub['runtime_info'].get(EVALUATED)
    parts = tuple(key for key, value in content.items() if isinstance(value, Mapping))
    return Start(path, dict(meta), parts, evaluated if SEED.test(evaluated) else None, [])


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer's state, or of several optimizers' states by name."""
    holders = [optimizer, *optimizer.values()] if isinstance(optimizer, dict) else []
    lists = [holder.get('param_groups') for holder in holders if isinstance(holder, dict)]
    return [group for groups in lists if isinstance(groups, list) for group in groups if isinstance(group, dict)]


def finished(start: Start, cfg: Config) -> str:
    """Return that nothing is left to do; '' if there are steps or an evaluation left."""
    train_cfg, unit = cfg.get('train_cfg') or {}, 'iter'
    done, total = start.meta['iter'], train_cfg.get('max_iters')
    if total is None:
        unit, done, total = 'epoch', start.meta['epoch'], train_cfg.get('max_epochs') or 0
    evaluated = start.evaluated in (None, start.meta['iter']) or cfg.get('val_cfg') is None
    if done < total or not evaluated:
        return ''
    return f'{start.path}: this run is finished, {done} of {total} {unit}s; to train on: train_cfg.max_{unit}s'


def changes_since(start: Start, cfg: Config, world_size: int) -> list[str]:
    """Return a note for what the resumed run, of ``cfg`` in ``world_size`` processes, does not keep as it was."""
    notes = []
    if 'optimizer' not in start.parts:
        notes.append('the checkpoint has no optimizer state: momentum and the like start at zero')
    meta, before = start.meta, saved_config(start.meta.get('cfg'))
    processes = meta.get('world_size', 1)
    if POSITION not in meta:
        notes.append('the checkpoint is of another tool: random numbers are not continued')
    if processes != world_size:
        notes.append(
            f'{world_size} processes instead of {processes}: each image is augmented as before and none is left out or '
            'repeated, apart from the step of the change; their grouping into batches, batch norm and dropout differ'
        )
    then, now = _images_per_step(before, processes), _images_per_step(cfg, world_size)
    if then and now and then != now:
        counts = value_at(cfg, 'optim_wrapper.accumulative_counts') or 1
        factor, rest = divmod(then * counts, now)
        way = '' if rest else f'; optim_wrapper.accumulative_counts={factor} keeps them'
        notes.append(
            f'a step had {then} images when the checkpoint was written and has {now} now{way}; the learning rate and '
            'the schedule, which counts steps, stay those of the checkpoint'
        )
    for path in RESTORED:
        if before and value_at(before, path) != value_at(cfg, path):
            notes.append(f'{path} of this config has no effect: the checkpoint brings its own')
    return notes


def _images_per_step(cfg: Mapping[str, Any], world_size: Any) -> int:
    counts = value_at(cfg, 'optim_wrapper.accumulative_counts') or 1
    parts = (value_at(cfg, 'train_dataloader.batch_size'), world_size, counts)
    return math.prod(parts) if all(isinstance(part, int) for part in parts) else 0


def held(folder: Path) -> AbstractContextManager[None]:
    """Return the lock of a work dir, which one run can hold; a UserError in the block's place if another one has it."""
    return locked(folder, f'another run is training in {folder}; choose another --work-dir, or wait for its end')


def check_unused(folder: Path) -> None:
    """Check that an earlier run left no checkpoints, which a new one would overwrite; else a UserError."""
    old = checkpoints_in(folder) or sorted(folder.glob(BEST))
    if old:
        raise UserError(
            f'{folder} has checkpoints of an earlier run (such as {old[0].name}): --resume continues it, '
            '--work-dir DIR trains elsewhere, --overwrite deletes them'
        )


def clear_work_dir(folder: Path) -> list[Path]:
    """Delete the checkpoints that an earlier run left in ``folder``, and return them."""
    old = [*checkpoints_in(folder), *folder.glob(BEST)]
    for path in [*old, *map(checksum_file, old), folder / POINTER]:
        path.unlink(missing_ok=True)
    return old

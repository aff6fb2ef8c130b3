"""Training that a stop does not change: a resumed run ends with the weights of an uninterrupted one.

Random numbers are not restored but drawn anew: each step starts with generators seeded by (seed, step, process), each
training sample with generators seeded by (seed, epoch, index). Inside an epoch the batches that were trained are left
out before their images are read.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmres2net.engine.build import unwrapped
from mmres2net.engine.checkpoints import EVALUATED, is_accumulating
from mmres2net.signals import hold_signals

POSITION = 'position'  # in the meta data of a checkpoint: batches done in the epoch, images of a batch of all processes
GRADIENTS = 'gradients'  # in a checkpoint between two updates of accumulated gradients
STEP, SAMPLE, INITIAL, EVALUATION = range(4)  # what random numbers are for


def seed_generators(*key: int, device: str = 'cpu') -> None:
    """Seed Python's, NumPy's and torch's global random generators by some integers of 0 or more."""
    words = np.random.SeedSequence(key).generate_state(8)
    random.seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:6])
    # torch.manual_seed looks for GPUs each time.
    (torch.default_generator if device == 'cpu' else torch).manual_seed(int(words[6]) << 32 | int(words[7]))


class Sample(int):
    """The index of a sample, with the key of its random numbers."""

    key: tuple[int, ...]


def seeded(dataset: Any) -> Any:
    """Have a data set seed the generators before it reads a :class:`Sample`, by a subclass of its class; return it."""
    kind = type(dataset)

    def get(self: Any, index: Any) -> Any:
        if isinstance(index, Sample):
            seed_generators(SAMPLE, *index.key)
            index = int(index)
        return kind.__getitem__(self, index)

    def get_all(self: Any, indices: list[Any]) -> list[Any]:
        return [get(self, index) for index in indices]

    def reduce(self: Any) -> Any:  # for workers that are not forked
        plain = object.__new__(kind)
        vars(plain).update(vars(self))
        return seeded, (plain,)

    methods = {'__getitem__': get, '__getitems__': get_all, '__reduce__': reduce, '__module__': kind.__module__}
    dataset.__class__ = type(kind.__name__, (kind,), methods)
    return dataset


class ExactBatches:
    """A batch sampler of a data set of some ``length``, with keys for random numbers, which can start in an epoch."""

    def __init__(self, batches: Any, seed: int, length: int) -> None:
        self.batches, self.seed, self.length = batches, seed, length
        self.epoch = self.start = 0  # of the next iteration: number, batches to leave out
        self.endless = not hasattr(batches.sampler, 'epoch')
        self._rank, self._world_size = get_dist_info()

    def __iter__(self) -> Iterator[list[Any]]:
        epoch, start = self.epoch, self.start
        self.epoch, self.start = epoch + 1, 0
        drawn = np.zeros(self.length, np.int32)  # how often each sample was drawn in the epoch
        position, round_ = self._rank, 0
        # Processes draw the same sample to augment it differently.
        process = [self._rank] if hasattr(self.batches.sampler, 'num_repeats') else []
        for number, batch in enumerate(self.batches):
            items = list(batch)
            for place, index in enumerate(items):
                if self.endless and position // self.length > round_:
                    round_ = position // self.length
                    drawn[:] = 0
                position += self._world_size
                if isinstance(index, int):
                    items[place] = sample = Sample(index)
                    sample.key = (self.seed, epoch + round_, index, int(drawn[index]), *process)
                    drawn[index] += 1
            if number >= start:
                yield items

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['batches'], name)


class ExactHook(Hook):
    """Seed each step and each sample, note the position in the epoch, and begin a resumed run there."""

    priority = 'VERY_HIGH'  # before hooks that draw random numbers or save

    def __init__(self) -> None:
        self.batches: ExactBatches | None = None
        self._position: tuple[int, int] | None = None  # as the checkpoint has it
        self._gradients: dict[str, torch.Tensor] = {}
        self._device, self._epoch, self._begin = 'cpu', -1, 0
        self._by_steps = False

    def before_run(self, runner: Runner) -> None:
        loader, self._by_steps = runner.train_loop.dataloader, isinstance(runner.train_loop, IterBasedTrainLoop)
        self._device = next((p.device.type for p in runner.model.parameters()), 'cpu')
        if isinstance(loader, DataLoader) and hasattr(loader.batch_sampler, 'sampler'):
            self.batches = ExactBatches(loader.batch_sampler, runner.seed, len(seeded(loader.dataset)))
            vars(loader)['batch_sampler'] = self.batches  # torch's DataLoader refuses to set it

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner.cfg.get('resume'):
            match checkpoint.get('meta', {}).get(POSITION):
                case [int(done), int(images)] if done >= 0 and images > 0:
                    self._position = done, images
            self._gradients = checkpoint.get(GRADIENTS) or {}

    def before_train(self, runner: Runner) -> None:
        """Go on behind the images that were trained; a batch of all processes may have another size than before."""
        for name, parameter in unwrapped(runner.model).named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter)
        batches, now = self.batches, self._images()
        done, images = self._position or (runner.iter if self._by_steps else 0, now)
        done = done if images == now else round(done * images / now)
        self._begin = runner.iter - done
        if batches is not None:
            epoch, batches.start = (0, done) if batches.endless else divmod(done, max(len(batches), 1))
            batches.epoch = epoch if self._by_steps else runner.epoch
            if epoch and not self._by_steps:
                batches.start = len(batches)
            if not self._by_steps:  # steps were of another size, and the time left goes by the number of all
                runner.train_loop._max_iters += runner.iter - runner.epoch * len(batches) - batches.start

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin an epoch with what is left of it; a run that counts steps is one epoch to MMEngine."""
        loop, batches = runner.train_loop, self.batches
        if batches is None:
            return
        if self._by_steps:
            if hasattr(batches.sampler, 'set_epoch'):
                batches.sampler.set_epoch(batches.epoch)
            loop.dataloader_iterator._epoch = batches.epoch
            loop.dataloader_iterator.skip_iter = lambda steps: None  # MMEngine's own way reads the images
            return
        self._epoch = batches.epoch = runner.epoch
        self._begin, start = runner.iter - batches.start, batches.start
        if start:
            loop.run_iter = lambda idx, data_batch: type(loop).run_iter(loop, idx + start, data_batch)

    def after_train_epoch(self, runner: Runner) -> None:
        vars(runner.train_loop).pop('run_iter', None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_generators(STEP, runner.seed, runner.iter, get_rank(), device=self._device)

    def before_val_epoch(self, runner: Runner) -> None:
        seed_generators(EVALUATION, runner.seed, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        hold_signals(True)
        runner.message_hub.update_info(EVALUATED, runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the position, and gradients that wait for their update."""
        meta = checkpoint['meta']
        done = meta['iter'] - self._begin if self._by_steps or meta['epoch'] == self._epoch else 0
        meta[POSITION] = [done, self._images()]
        if is_accumulating(runner):
            named = unwrapped(runner.model).named_parameters()
            checkpoint[GRADIENTS] = {name: p.grad.cpu() for name, p in named if p.grad is not None}

    def evaluation_is_due(self, runner: Runner) -> bool:
        """Whether the run was stopped before the evaluation that follows the last step of the checkpoint."""
        loop, by_steps = runner.train_loop, self._by_steps
        inside = self._position is not None and self._position[0] and not by_steps
        if runner.val_loop is None or inside or not isinstance(loop, IterBasedTrainLoop | EpochBasedTrainLoop):
            return False
        loop._decide_current_val_interval()
        now, last = (loop.iter, loop.max_iters) if by_steps else (loop.epoch, loop.max_epochs)
        return now >= loop.val_begin and (now % loop.val_interval == 0 or now == last)

    def _images(self) -> int:
        size = getattr(self.batches, 'batch_size', 1)
        return (size if isinstance(size, int) else 1) * get_world_size()

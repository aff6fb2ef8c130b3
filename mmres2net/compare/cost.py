"""What an image costs each side: parameters, multiply-adds, time measured in turns, memory."""

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark.utils.timer import timer  # when a GPU has done all that it was given

from mmres2net.compare.gallery import Network
from mmres2net.compare.result import Cost, Estimate, Side
from mmres2net.complexity import complexity_of, image_size
from mmres2net.engine.embedded import registered_only, saved_config
from mmres2net.errors import UserError, reason_of

IMAGES, WARM_UP, LEAST, MOST = 8, 2, 10, 64  # images that are taken in turn, and turns
SECONDS = 60  # after so long no turn begins
SAMPLES = 2000  # of the bootstrap of medians
THROTTLED = 1.1
EMPTY = Estimate(None, None, None)
CPUINFO = Path('/proc/cpuinfo')


def costs_of(
    sides: Sequence[Side], networks: Sequence[Network], *, seconds: float = SECONDS
) -> tuple[tuple[Cost, ...], str]:
    """Return what an image costs each side, and a note on how that was measured.

    The ``networks`` are those of the first run of each side; without them neither time nor memory is measured. After
    ``seconds`` no turn begins, once there have been a few.
    """
    times, notes = np.empty((len(sides), 0)), []
    memory: Sequence[int | None] = [None] * len(sides)
    if networks:
        try:
            memory, times = [_memory(network) for network in networks], _times(networks, seconds)
            notes = _notes(times, networks[0].device)
        except Exception as error:  # a model is a program
            notes = [f'Time and memory were not measured: {reason_of(error)}.']
    found = []
    for side, mine, most in zip(sides, times, memory, strict=True):
        parameters, macs, size = None, None, None
        try:
            with registered_only():
                cfg = Config(saved_config(side.runs[0].config))
                cost = complexity_of(cfg, image_size(cfg))
            parameters, macs, size = cost.parameters, cost.macs, cost.size
        except UserError as error:
            notes.append(f'{side.name}: {error}.')
        spent, ratio = (_median(values) if mine.size else EMPTY for values in (1000 * mine, mine / times[0]))
        found.append(Cost(side.name, parameters, macs, size, spent, ratio, most))
    return tuple(found), ' '.join(notes)


def _times(networks: Sequence[Network], seconds: float) -> np.ndarray:
    """Return the seconds (sides, turns) of an image in each network, in turns A B, B A, A B ...; an image a turn."""
    count = min(IMAGES, len(networks[0].dataset))
    items = [[network.item(number) for number in range(count)] for network in networks]
    turns: list[list[float]] = []
    begin = timer()
    while len(turns) < MOST and (len(turns) < LEAST or timer() - begin < seconds):
        turns.append([0.0] * len(networks))
        for side in range(len(networks))[:: -1 if len(turns) % 2 else 1]:
            since = timer()
            networks[side].predict(items[side][len(turns) % count])
            turns[-1][side] = timer() - since
    return np.array(turns[WARM_UP:]).T


def _memory(network: Network) -> int:
    """Return the most bytes of tensors at a time that an image needs beside the weights."""
    item = network.item(0)
    if network.device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network.predict(item)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        network.predict(item)
    events: Any = profiler.profiler.kineto_results.events()
    records = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == '[memory]')
    return int(np.cumsum([size for _, size in records]).max(initial=0))


def _median(values: np.ndarray) -> Estimate:
    """Return the median with the percentile interval of its bootstrap."""
    draws = np.random.default_rng(0).integers(len(values), size=(SAMPLES, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975])
    return Estimate(float(np.median(values)), float(low), float(high))


def _notes(times: np.ndarray, device: str) -> list[str]:
    first, last = (1000 * float(np.median(part)) for part in np.array_split(times[0], 3)[::2])
    cpu = re.search(r'^model name\s*:\s*(.+)$', CPUINFO.read_text(), re.MULTILINE) if CPUINFO.is_file() else None
    name = torch.cuda.get_device_name() if device == 'cuda' else cpu[1] if cpu else platform.machine()
    notes = [f'{times.shape[1]} turns on {name}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}.']
    if max(first / last, last / first) > THROTTLED:
        notes.append(f'The speed of the machine changed: {first:.1f} ms an image at first, {last:.1f} ms at last.')
    return notes

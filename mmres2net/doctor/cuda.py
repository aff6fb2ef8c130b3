"""The card, its driver, and what torch and mmcv were compiled for. All from the probes' facts and ``/proc``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmres2net.doctor.child import Answer
from mmres2net.doctor.compiled import line_of
from mmres2net.doctor.packages import compile_mmcv
from mmres2net.doctor.result import Result, numbers

DRIVER = Path('/proc/driver/nvidia/version')


def driver() -> str | None:
    """Return the version of the NVIDIA driver in the kernel; None without one."""
    try:
        found = re.search(r'Kernel Module\D*([\d.]+)', DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else 'of unknown version'


def runs_on(archs: Sequence[str], capability: Sequence[int]) -> bool:
    """Return whether code compiled for ``archs`` runs on a card of that compute capability.

    Machine code (``sm_86``) runs on its own major version from its minor one upwards, intermediate code
    (``compute_90``) on every later card; an architecture with a letter (``sm_90a``) on that one alone. Source: CUDA
    C++ Programming Guide, sections "Binary Compatibility" and "PTX Compatibility".
    """
    major, minor = capability
    for arch in archs:
        kind, _, digits = arch.partition('_')
        if not digits.isdigit():
            if digits[:-1] == f'{major}{minor}':
                return True
            continue
        built = int(digits[:-1]), int(digits[-1])
        if (kind == 'compute' and built <= (major, minor)) or (
            kind == 'sm' and built[0] == major and built[1] <= minor
        ):
            return True
    return False


def check_torch(answers: Mapping[str, Answer]) -> Iterator[Result]:
    """Look at torch, whether it should see a card, and whether it has code for the one it sees."""
    answer = answers['torch']
    facts = answer.facts
    yield line_of('torch', answer, detail=f'{facts.get("version")} runs, built for CUDA {facts.get("cuda")}')
    if answer.good:
        yield from (_card(facts, gpu) for gpu in facts['gpus'])
        if not facts['gpus']:
            yield _no_card(facts)


def _no_card(facts: Mapping[str, Any]) -> Result:
    version, hidden = driver(), os.environ.get('CUDA_VISIBLE_DEVICES')
    if version is None:
        return Result('GPU', 'note', 'no NVIDIA driver: everything runs on the CPU')
    text = f'the driver is {version}'
    if hidden is not None and hidden.strip() in ('', '-1'):
        return Result('GPU', 'note', f'{text}; CUDA_VISIBLE_DEVICES={hidden!r} hides the cards')
    if facts['cuda'] is None:
        remedy = 'install a torch built for CUDA if the card shall be used, then compile mmcv anew'
        return Result('GPU', 'warn', f'{text}, but this torch is built for the CPU alone', remedy)
    remedy = (
        f'a driver that serves CUDA {facts["cuda"]}, or a torch for an older CUDA; in Docker: --gpus all, with the'
        ' NVIDIA Container Toolkit installed'
    )
    return Result('GPU', 'fail', f'{text}, torch sees no card: {facts["trouble"] or "no reason given"}', remedy)


def _card(facts: Mapping[str, Any], gpu: Mapping[str, Any]) -> Result:
    capability = '.'.join(map(str, gpu['capability']))
    text = f'{gpu["name"]}, compute capability {capability}'
    if not runs_on(facts['archs'], gpu['capability']):
        remedy = f'install a torch that is built for {capability} (another version, or another --torch-index)'
        return Result('GPU', 'fail', f'{text}: torch has code for {" ".join(facts["archs"])} only', remedy)
    if gpu['error']:
        return Result('GPU', 'fail', f'{text}: {gpu["error"]}', 'see nvidia-smi: it may be full or lost')
    return Result('GPU', 'ok', f'{text}, runs torch {facts["version"]}')


def check_mmcv(answers: Mapping[str, Answer], required: frozenset[str] = frozenset()) -> Iterator[Result]:
    """Look at mmcv's CUDA operators: there, of torch's CUDA, compiled for the card, and right on it.

    Args:
        required: With ``cuda`` in it, CUDA operators have to be compiled in also where no card is visible.
    """
    torch, ops = answers['torch'], answers['mmcv_ops']
    if not (torch.good and ops.good):
        return
    gpus, built, theirs = torch.facts['gpus'], ops.facts['cuda'], torch.facts['cuda']
    archs = ';'.join(sorted({'.'.join(map(str, gpu['capability'])) for gpu in gpus})) or '8.0;8.6;8.9;9.0+PTX'
    variables = f'FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="{archs}"'
    remedy = f'with an nvcc of CUDA {theirs}: {compile_mmcv(variables, "make setup CUDA=1")}'

    if built == 'not available':
        if gpus or 'cuda' in required:
            detail = 'compiled without CUDA: NMS and RoIAlign will not run on the card'
            yield Result('mmcv CUDA ops', 'fail', detail, remedy)
    elif numbers(built)[:1] != numbers(theirs or '')[:1]:
        yield Result('mmcv CUDA ops', 'fail', f'compiled for CUDA {built}, torch is for CUDA {theirs}', remedy)
    elif not gpus:
        yield Result('mmcv CUDA ops', 'ok', f'compiled for CUDA {built}; not run, for no card is visible')
    elif answers['mmcv_cuda'].good:
        yield Result('mmcv CUDA ops', 'ok', f'NMS and RoIAlign are right on {len(gpus)} card(s); CUDA {built}')
    else:
        error = answers['mmcv_cuda'].error
        other = 'no kernel image' in error or 'invalid device function' in error
        detail = f'compiled for CUDA {built}, but not for compute capability {archs}: {error}' if other else error
        yield Result('mmcv CUDA ops', 'fail', detail, remedy)

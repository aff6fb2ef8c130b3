"""Freed memory stays in the process where glibc lets it; elsewhere nothing happens, and it is said."""

import json
import platform
import subprocess
import sys

import pytest

from mmres2net import malloc

FAULTS = """
import json, resource
import torch
from mmres2net.engine.speed import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(64 * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
done = keep_freed_memory()
faults()
kept = faults()
print(json.dumps({'first': first, 'done': done, 'kept': kept, 'back': keep_freed_memory(False)}))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc alone has the switches')
def test_pages_are_mapped_once() -> None:
    """Ten blocks of 64 MiB: ten times 16,384 new pages as glibc does it, hardly any with freed memory kept."""
    done = subprocess.run([sys.executable, '-c', FAULTS], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found['done']
    assert found['back']
    assert found['first'] > 10 * found['kept']


def test_says_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(malloc.platform, 'libc_ver', lambda: ('', ''))
    assert malloc.keep_freed_memory() is False
    assert malloc.keep_freed_memory(False) is False

"""Keep freed memory in the process: on a CPU, activations otherwise come back as new pages at every step.

glibc returns a block of more than 32 MiB to the system as soon as it is freed, and a network frees its activations at
every image. Each page is then cleared and mapped again, which costs as much as a convolution on it.
"""

from __future__ import annotations

import ctypes
import platform
import sys

# <malloc.h> of glibc.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
# The value that glibc itself reaches after a process has freed large blocks (mallopt(3)).
MMAP_THRESHOLD_MAX = 32 * 2**20
GROW_BY = 256 * 2**20
NEVER = -1


def keep_freed_memory(keep: bool = True) -> bool:
    """Let this process keep the memory that it frees, so that the next image or step reuses it without new pages.

    This applies to the whole process. Results do not change. The process then holds the most memory that it needed so
    far.

    Args:
        keep: False restores glibc's defaults and releases free memory.

    Returns:
        Whether it was done. Only glibc has these switches (not musl, macOS or Windows). Another preloaded allocator
        (jemalloc, tcmalloc) keeps memory by itself and is not changed.
    """
    if sys.platform != 'linux' or platform.libc_ver()[0] != 'glibc':
        return False
    libc = ctypes.CDLL(None)
    if keep:
        settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: GROW_BY}
    else:
        settings = {
            M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: MMAP_THRESHOLD_MAX, M_TRIM_THRESHOLD: 2 * MMAP_THRESHOLD_MAX,
            M_TOP_PAD: 131072,
        }  # fmt: skip
    done = all(libc.mallopt(name, value) == 1 for name, value in settings.items())
    if not keep:
        libc.malloc_trim(0)
    return done

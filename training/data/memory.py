"""Memory of workers that handle one large array after another.

By default memory that is freed goes back to the operating system and each page of the next array
is asked for anew. Where a fault of a page is dear, as on most virtual machines, that costs a
quarter of a worker's time.
"""

import ctypes
from functools import cache

import pyarrow as pa

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
KEEP_BYTES = 2**30
GROW_BYTES = 2**26


@cache
def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, up to KEEP_BYTES, for its next arrays.

    numpy and Arrow then share the C library's memory. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    mallopt(M_TOP_PAD, GROW_BYTES)
    pa.set_memory_pool(pa.system_memory_pool())

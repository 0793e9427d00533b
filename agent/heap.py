"""Keeps freed memory in the process: a window's spectrum is then the same warm pages every time."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
KEPT_BYTES = 32 << 20  # the most that M_MMAP_THRESHOLD takes; a spectrum block of one second has 0.4 MB


def steady_heap() -> bool:
    """Tell glibc's malloc not to give blocks below 32 MiB back to the kernel; call once, before the first window.

    By default the spectrum (0.4 MB) is, depending on the heap's history, mapped and faulted in anew for every window:
    100 page faults that can cost more than the Fourier transform itself (measured: 575 against 174 us).
    Returns: False where the C library is another one; nothing is changed there.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))

"""Keeps freed memory in the process: a window's spectrum is then the same warm pages every time."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc, malloc.h
KEPT_BYTES = 32 << 20  # the most that M_MMAP_THRESHOLD takes; a spectrum block of one second has 0.4 MB
N_ARENAS = 1


def steady_heap() -> bool:
    """Tell glibc's malloc not to give blocks below 32 MiB back to the kernel; call once, before the first window.

    By default the spectrum (0.4 MB) is, depending on the heap's history, mapped and faulted in anew for every window:
    100 page faults that can cost more than the Fourier transform itself (measured: 575 against 174 us).

    And one heap for all threads: each would else keep freed blocks of its own, 4 to 5 MiB in all (ten machines, one run each).
    Threads that take turns for the interpreter do not queue for the heap.
    Returns: False where the C library is another one; nothing is changed there.
    """
    libc = _glibc()
    if libc is None:
        return False
    settings = {M_MMAP_THRESHOLD: KEPT_BYTES, M_TRIM_THRESHOLD: KEPT_BYTES, M_ARENA_MAX: N_ARENAS}
    taken = [bool(libc.mallopt(name, value)) for name, value in settings.items()]
    return all(taken)


def give_back() -> None:
    """Return what start-up has freed to the kernel; call once, when everything is open."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None

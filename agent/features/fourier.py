"""The Fourier transforms, behind one door: SciPy's pocketfft without what `import scipy.fft` brings along.

That import also loads scipy.special and, through its array layer, numpy.f2py, numpy.testing and numpy.random: 22 MiB and
0.15 s, more than any package of ours but the engine (measured, from bare NumPy's 25.6 MiB: 50.2 against 28.0 MiB). The
compiled module beneath needs none of them, so it is loaded by itself from where it lies; its numbers are scipy.fft's, bit
for bit (tested). It is private to SciPy: where a release has moved or changed it, the public functions are taken, and
memory is all that it costs.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.vocabulary import F32

C64 = NDArray[np.complex64]
ALONG_ROWS = (1,)
NOTHING = np.float32(1e-30)  # keeps a silent line silent instead of undefined
BARE, BY_LENGTH = 0, 2  # pocketfft's norms: none for the forward transform, one over the length for the inverse


def rfft(rows: F32, out: C64 | None = None) -> C64:
    """Real transform of every row: shape (n_rows, n) -> (n_rows, n // 2 + 1), into `out` where it is given."""
    spectrum: C64 = _pocketfft.r2c(rows, ALONG_ROWS, True, BARE, out, 1)
    return spectrum


def ifft(rows: C64) -> C64:
    """Inverse complex transform of every row, divided by its length; may be written over its input."""
    signal: C64 = _pocketfft.c2c(rows, ALONG_ROWS, False, BY_LENGTH, rows, 1)
    return signal


def whitened(spectrum: C64) -> C64:
    """All lines of equal height, their phases kept: what is steady is gone, what comes and goes stays.

    Source: Borghesani et al. 2013, cepstrum pre-whitening: the spectrum divided by its magnitude.
    """
    height: F32 = np.maximum(np.abs(spectrum), NOTHING)
    white: C64 = np.divide(spectrum, height, dtype=np.complex64)
    return white


def fast_length(n: int) -> int:
    """The next length that a real transform is quick at: factors 2, 3 and 5 only."""
    return int(_pocketfft.good_size(n, True))


def private_pocketfft() -> Any:
    """SciPy's compiled module alone, or None where it is not there or does not answer as known.

    Asked for in its own folder, because `import scipy.fft._pocketfft` would run everything that stands above it.
    """
    scipy = importlib.util.find_spec("scipy")
    if scipy is None or not scipy.submodule_search_locations:
        return None
    folder = Path(scipy.submodule_search_locations[0]) / "fft" / "_pocketfft"
    spec = PathFinder.find_spec("pypocketfft", [str(folder)])
    if spec is None or spec.loader is None:
        return None
    try:
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module if _is_sound(module) else None
    except (ImportError, AttributeError, TypeError, ValueError):
        return None


def _is_sound(module: Any) -> bool:
    """Whether a pulse becomes a flat line and comes back."""
    line = module.r2c(np.array([[1, 0, 0, 0]], np.float32), ALONG_ROWS, True, BARE, None, 1)
    pulse = module.c2c(np.ones((1, 4), np.complex64), ALONG_ROWS, False, BY_LENGTH, None, 1)
    flat = line.dtype == np.complex64 and np.array_equal(line, [[1, 1, 1]])
    return bool(flat and np.array_equal(pulse, [[1, 0, 0, 0]]) and module.good_size(1023, True) == 1024)


class PublicPocketfft:
    """scipy.fft under the names and arguments of its compiled module."""

    def __init__(self) -> None:
        from scipy import fft

        self._fft = fft

    def r2c(self, rows: F32, _axes: object, _forward: bool, _norm: int, out: C64 | None, _n_threads: int) -> C64:
        spectrum = np.asarray(self._fft.rfft(rows, axis=1))
        if out is None:
            return spectrum
        out[:] = spectrum
        return out

    def c2c(self, rows: C64, _axes: object, _forward: bool, _norm: int, _out: object, _n_threads: int) -> C64:
        return np.asarray(self._fft.ifft(rows, axis=1, overwrite_x=True))

    def good_size(self, n: int, _real: bool) -> int:
        return int(self._fft.next_fast_len(n, real=True))


_pocketfft: Any = private_pocketfft() or PublicPocketfft()

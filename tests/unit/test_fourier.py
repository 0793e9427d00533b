"""The transforms: scipy.fft's numbers bit for bit, from the private module and from the public one alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from agent.features import fourier

LENGTHS = (25600, 4608, 4500, 1000, 99)


@pytest.fixture(params=["as loaded", "private", "public"])
def transforms(request, monkeypatch):
    if request.param == "private":
        module = fourier.private_pocketfft()
        assert module is not None, "this SciPy has moved it: see agent/features/fourier.py"
        monkeypatch.setattr(fourier, "_pocketfft", module)
    if request.param == "public":
        monkeypatch.setattr(fourier, "_pocketfft", fourier.PublicPocketfft())
    return fourier


@pytest.mark.parametrize("n_samples", LENGTHS)
def test_the_numbers_are_those_of_scipy_fft(transforms, n_samples):
    rows = np.random.default_rng(n_samples).standard_normal((4, n_samples)).astype(np.float32)
    spectrum = transforms.rfft(rows)
    assert spectrum.dtype == np.complex64
    assert np.array_equal(spectrum, fft.rfft(rows, axis=1))
    line = (rows + 1j * rows[::-1]).astype(np.complex64)
    expected = fft.ifft(line, axis=1)
    assert np.array_equal(transforms.ifft(line), expected)


@pytest.mark.parametrize("n_samples", [7, 1023, 4455, 25601])
def test_the_fast_length_is_that_of_scipy_fft(transforms, n_samples):
    assert transforms.fast_length(n_samples) == fft.next_fast_len(n_samples, real=True)


def test_a_scipy_without_the_private_module_is_answered_with_the_public_one(monkeypatch):
    monkeypatch.setattr(fourier.PathFinder, "find_spec", lambda *_: None)
    assert fourier.private_pocketfft() is None


def test_a_module_that_answers_otherwise_is_not_taken(monkeypatch):
    monkeypatch.setattr(fourier, "_is_sound", lambda module: module.r2c())
    assert fourier.private_pocketfft() is None

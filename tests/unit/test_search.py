"""The search tries what it may, judges on what nothing was fitted to, and ships the least that finds faults earliest."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import alarm_body, enough_windows, feature_body, healthy_messages, healthy_vectors, message, stored

from agent.baseline import Baseline
from agent.decision.rate import poisson_interval
from training.dataset import Windows
from training.learned import Kind, Learned, Vectors, cut, without_spikes
from training.metrics import independent_count
from training.report import report_html
from training.search import (
    OUT_OF_TIME,
    Board,
    Candidate,
    Effort,
    Entry,
    Fold,
    Stretch,
    Terms,
    Trial,
    _board,
    attempt,
    candidates,
    n_alarms,
    search,
)
from training.sensitivity import Faulty, Sensitivity, injected, signatures
from training.splits import folds_by_machine, material_of, parts_of
from training.train import Recipe, Trained, train_site

N_COLUMNS = 6
NAMES = ("spectrum.velocity_rms_mm_s", *(f"other_{at}" for at in range(1, N_COLUMNS)))
TERMS = Terms(NAMES, "made up", 0.5, 600.0, 3, 5, 1)


@pytest.fixture(scope="module")
def kind(root: Path) -> Kind:
    return Kind.named(root, "motor")


# ---------------------------------------------------------------------------------------------- which candidate ships
def white(rng: np.random.Generator, n_windows: int) -> Vectors:
    z = rng.standard_normal((n_windows, N_COLUMNS)).astype(np.float32)
    return z, np.ones_like(z)


def fold(moved: list[int], seed: int = 1) -> Fold:
    """Six machines of white noise; the one fault moves these columns, by up to ten standard deviations."""
    rng = np.random.default_rng(seed)
    nothing = np.zeros(N_COLUMNS)
    baseline = Baseline(nothing, nothing + 1, nothing, 100, "")
    machines = [Learned(f"M-{at}", "running:10", baseline, white(rng, 100), white(rng, 200)) for at in range(6)]
    faulty = []
    for severity in (0.1, 0.25, 0.5, 1.0):
        z, mask = cut(machines[4].later, slice(0, 40))
        z = z.copy()
        z[:, moved] += 10.0 * severity
        faulty.append(Faulty(0, ("fault", severity), (z, mask)))
    stretches = [Stretch(machine) for machine in machines]
    pool = tuple(machine.later for machine in machines[:2])
    return Fold("other machines", pool, tuple(stretches[2:4]), tuple(stretches[4:]), tuple(faulty))


def named(board: Board, label: str) -> str:
    return next(entry.note for entry in board.entries if entry.candidate.label == label)


def test_the_plain_limit_ships_where_nothing_beats_it() -> None:
    """A fault that shows in the RMS value alone is drowned in whatever else a model looks at; and the reason says so."""
    board = search([fold([0], seed=2)], candidates(("rms_limit", "pca", "mahalanobis")), TERMS)
    assert board.winner.candidate == Candidate("rms_limit")
    assert "Nothing beat the plain limit on RMS values" in board.reason


def test_a_fault_that_the_plain_limit_does_not_see_lets_a_model_ship() -> None:
    """It stays on the board, with what it finds: nothing."""
    board = search([fold([2, 3])], candidates(("rms_limit", "pca")), TERMS)
    assert board.winner.candidate == Candidate("pca", (("explained", 0.8),)) or board.winner.candidate == Candidate(
        "pca"
    )
    plain = next(entry for entry in board.entries if entry.candidate.family == "rms_limit")
    assert (plain.sensitivity.n_found, plain.sensitivity.mean(0.5)) == (0, 2.0)
    assert "against 2.000 of the plain limit" in board.reason


def entry_of(family: str, *found_from: float) -> Entry:
    """A candidate that finds the fault from these severities on, one a fold; its model and its healthy scores are real."""
    tried = fold([0])
    outcome = attempt(TERMS, (Candidate(family), tried))
    assert isinstance(outcome, Trial)
    severities = np.arange(0.1, 1.05, 0.1)
    trials = [
        replace(outcome, found=tuple((("fault", float(at)), np.array([at > first])) for at in severities))
        for first in found_from
    ]
    return Entry.of(Candidate(family), TERMS, trials)


def test_what_is_heavier_ships_only_where_it_is_better_in_every_fold() -> None:
    """A lead on the whole may be one fold's luck; the board still shows it."""
    folds = [fold([0]), fold([0])]
    default = entry_of("pca", 0.4, 0.4)
    lucky, better = entry_of("pca_ewma", 0.1, 0.5), entry_of("pca_ewma", 0.3, 0.3)
    board = _board([default, lucky], folds)
    assert board.entries == (lucky, default)
    assert board.winner is default
    assert board.reason.startswith(
        "pca_ewma leads, but is heavier than pca and does not beat it in every fold. pca ships"
    )
    assert _board([default, better], folds).winner is better


def test_without_time_the_plain_ones_are_tried_and_the_rest_is_named() -> None:
    """A budget of nothing still gives a model and never hides what was left out."""
    board = search([fold([0, 1, 2])], candidates(), TERMS, Effort(out_of_time=lambda: True))
    assert {entry.candidate.label for entry in board.ranked} == {"rms_limit", "limits", "pca"}
    assert named(board, "autoencoder") == named(board, "pca explained=0.8") == OUT_OF_TIME


def test_a_candidate_that_cannot_be_fitted_says_why_and_stops_nobody() -> None:
    """Few windows end a covariance, not the training."""
    small = fold([0, 1])
    short = Fold("short", tuple(cut(part, slice(0, 5)) for part in small.fit), small.tail, small.check, small.faulty)
    board = search([short], candidates(("limits", "pca")), TERMS)
    assert board.winner.candidate.family == "limits"
    assert "10 healthy windows for 6 columns" in named(board, "pca")


def test_independent_moments_do_not_praise_a_memory() -> None:
    """Averaging white noise is easy; a plant's weather and load are slow."""
    drawn = fold([0, 1])
    drawn = Fold(drawn.name, drawn.fit, drawn.tail, drawn.check, drawn.faulty, no_memory="all is drawn")
    board = search([drawn], candidates(("pca", "ewma", "cusum")), TERMS)
    assert {entry.candidate.family for entry in board.ranked} == {"pca"}
    assert named(board, "ewma") == "has a memory, and all is drawn"


def test_processes_change_nothing() -> None:
    """A unit of work is one candidate in one fold, and shares nothing."""
    tried = candidates(("rms_limit", "limits"))
    alone, together = (search([fold([0]), fold([1])], tried, TERMS, Effort(n_jobs=n_jobs)) for n_jobs in (1, 2))
    assert [entry.rank for entry in alone.entries] == [entry.rank for entry in together.entries]


# ---------------------------------------------------------------------------------------------- figures
@pytest.mark.parametrize(("n_events", "months"), [(0, 3.0), (1, 4.7), (2, 6.3), (3, 7.8), (5, 10.5), (10, 17.0)])
def test_how_many_months_prove_one_false_alarm_a_month(n_events: int, months: float) -> None:
    """The exact Poisson table that promises are made by, to its last digit."""
    lower, upper = poisson_interval(n_events, months)
    assert upper == pytest.approx(1.0, abs=0.012)
    assert lower < n_events / months or n_events == 0


def test_values_that_follow_each_other_count_less() -> None:
    """White noise counts in full; noise with a correlation of 0.9 from one to the next counts a nineteenth."""
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(20_000)
    slow = np.zeros_like(noise)
    for at in range(1, len(noise)):
        slow[at] = 0.9 * slow[at - 1] + noise[at]
    assert independent_count([noise]) == pytest.approx(20_000, rel=0.1)
    assert independent_count([slow]) == pytest.approx(20_000 / 19, rel=0.2)
    assert independent_count([np.ones(7), np.ones(3)]) == 10


def test_alarms_are_counted_as_the_agent_raises_them() -> None:
    """Three of five, and once while it stands."""
    assert n_alarms(np.array([1, 0, 0, 0, 0, 1, 0, 0], bool), 3, 5) == 0
    assert n_alarms(np.array([1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1], bool), 3, 5) == 2


# ---------------------------------------------------------------------------------------------- no leakage
@pytest.mark.parametrize("n_windows", [40, 41, 120, 999, 10_000])
def test_parts_of_a_machines_time_follow_each_other_and_never_touch(n_windows: int) -> None:
    """Baseline, model, threshold, figures: what judges is later than what is judged, with a gap for slow averages."""
    parts = parts_of(n_windows)
    ends = [0, parts.fit.stop, parts.tail.stop]
    for part, before in zip((parts.fit, parts.tail, parts.check), ends, strict=True):
        assert before < part.start < part.stop
    assert parts.n_learn + parts.check.stop == n_windows


def test_a_machine_held_back_is_held_back_in_all_its_states(kind: Kind) -> None:
    """Its low speed would tell of its high speed."""
    values = healthy_vectors(kind, 300, 1)
    windows = [
        Windows(machine, state, values, np.isfinite(values))
        for machine in ("A", "B", "C", "D")
        for state in ("running:5", "running:10")
    ]
    materials = [material_of(kind, one) for one in windows]
    folds = folds_by_machine(materials)
    assert [one.name for one in folds] == ["without A, D", "without B", "without C"]
    for one in folds:
        fitted = {stretch.machine.machine for stretch in one.tail}
        checked = {stretch.machine.machine for stretch in one.check}
        assert fitted | checked == set("ABCD")
        assert not fitted & checked
    assert folds_by_machine(materials[:2]) == []


def test_a_spike_goes_and_a_lasting_change_stays(kind: Kind) -> None:
    """What three of five windows do not share would raise no alarm; what stays would, so it may not be repaired away."""
    values = healthy_vectors(kind, 100, 3)
    values[30, 2] *= 50.0
    values[60:70, 3] *= 5.0
    repaired, n_spikes = without_spikes(kind, Windows("M", "running:10", values, np.isfinite(values)))
    assert n_spikes == 1
    assert np.isnan(repaired.values[30, 2])
    assert not repaired.present[30, 2]
    assert repaired.present[60:70, 3].all()


# ---------------------------------------------------------------------------------------------- sensitivity
def test_a_signature_is_laid_over_a_plants_own_values(kind: Kind) -> None:
    """A ratio where a column is logarithmic, a difference where it is not, nothing where the plant has no such column."""
    values = healthy_vectors(kind, 60, 4)
    windows = Windows("M", "running:10", values, np.isfinite(values))
    learned = material_of(kind, windows).learned
    made = signatures(kind)
    items = {item.grade: item.vectors for item in injected(kind, learned, windows.part(0, 24), made)}
    z, mask = items["unbalance", 1.0]
    before, _ = learned.baseline.refer(values[:24], np.isfinite(values[:24]), kind.transforms)
    line = kind.features.names.index("spectrum.line_1x_mm_s")
    moves = made.moves["unbalance", 1.0][np.arange(24) % 3, line]
    assert (np.exp(moves) > 3).all()
    assert (z - before)[:, line] == pytest.approx(moves / learned.baseline.scale[line], rel=1e-3)
    assert (mask[:, 5] == 0).all()
    current = kind.features.names.index("motor_current_a:tag.level")
    assert kind.transforms[current] == "linear"
    worn = made.moves["misalignment", 1.0][np.arange(24) % 3, current]
    after = items["misalignment", 1.0][0][:, current]
    assert (after - before[:, current]) == pytest.approx(worn / learned.baseline.scale[current], abs=1e-3)


def test_s50_and_s90_are_read_off_the_curve() -> None:
    """Over machines together; a fault that is never found counts as 2."""
    found = [(("a", 0.1), np.zeros(10, bool)), (("a", 0.2), np.ones(10, bool)), (("b", 0.1), np.zeros(4, bool))]
    both = Sensitivity.of(found)
    assert (both.severity("a", 0.5), both.severity("a", 0.9), both.severity("b", 0.5)) == (0.15, 0.19, 2.0)
    assert both.mean(0.5) == pytest.approx(1.075)
    assert (both.faults, both.n_found) == (("a", "b"), 1)


# ---------------------------------------------------------------------------------------------- the whole of it
def plant(folder: Path, kind: Kind) -> Path:
    """Two motors, one of which has an alarm for a while, and a third of which there is little."""
    onset = "2026-09-21T14:20:00Z"

    def all_of_it():  # type: ignore[no-untyped-def]
        yield from healthy_messages(kind, enough_windows(kind))
        odd = healthy_vectors(kind, 60, 7)
        yield from (
            message("feature", 2000 + at, feature_body(odd[at], kind.features.digest), "M-3") for at in range(60)
        )
        yield message("alarm", 0, alarm_body("a1", "unacknowledged", onset), utc_ns=1_790_000_450 * 10**9)
        yield message("alarm", 1, alarm_body("a1", "rtn_unacknowledged", onset), utc_ns=1_790_000_595 * 10**9)

    return stored(folder, all_of_it())


@pytest.fixture(scope="module")
def trained(root: Path, kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("searched")
    return train_site(root, plant(folder / "data", kind), "motor", folder / "bundle", Recipe())


def test_every_family_is_on_the_board_or_says_why_not(trained: Trained) -> None:
    """Sorted out of sight is worse than bad."""
    assert {entry.candidate for entry in trained.board.entries} == set(candidates())
    assert all(entry.note or entry.sensitivity.shares for entry in trained.board.entries)
    assert trained.manifest.provenance.family == trained.board.winner.candidate.family
    figures = {metric.name: metric.value for metric in trained.manifest.metrics}
    assert figures["candidate rms_limit: mean S50"] > figures["candidate pca: mean S50"]
    assert figures["S50 unbalance"] <= figures["S90 unbalance"] < 1.0


def test_every_row_of_the_dataset_is_used_or_counted(trained: Trained, kind: Kind) -> None:
    """By machine and reason."""
    used = sum(one.n_learn + one.n_fit + one.n_tail + one.n_check for one in trained.shares)
    assert trained.n_rows == used + sum(trained.left_out.values())
    assert trained.n_rows == 2 * enough_windows(kind) + 60
    figures = {metric.name: metric.value for metric in trained.manifest.metrics}
    assert trained.left_out["M-1", "inside an alarm"] == figures["windows inside alarms"] > 0
    assert 10.0 <= trained.terms.decision_interval_s <= 20.0


def test_the_report_stands_alone_and_names_every_candidate_and_machine(trained: Trained) -> None:
    """A file that is mailed, opened without a network, and read in a minute."""
    page = report_html(trained)
    assert not re.search(r"https?://|<script|@import|url\(|src=", page)
    assert len(page) < 1_000_000
    assert all(share.machine in page for share in trained.shares)
    for entry in trained.board.entries:
        assert entry.candidate.label in page
    for fault in trained.board.winner.sensitivity.faults:
        assert fault.replace("_", " ") in page
    assert page.count("<svg") == len(trained.board.winner.sensitivity.faults) + 2
    assert trained.board.reason in page


def test_the_same_data_and_seed_give_the_same_bytes(root: Path, kind: Kind, tmp_path: Path) -> None:
    """Whatever the number of processes."""
    data = plant(tmp_path / "data", kind)
    recipe = Recipe(("rms_limit", "pca", "autoencoder"))
    for name, n_jobs in (("first", 1), ("second", 2)):
        train_site(root, data, "motor", tmp_path / name, recipe, Effort(n_jobs=n_jobs))
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert "manifest.json" in files
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    assert manifest["provenance"]["settings"]["candidate"].startswith(manifest["provenance"]["family"])
    card = (tmp_path / "first" / "card.md").read_text()
    assert "## Leaderboard" in card
    assert "(ships)" in card
    assert "judged where neither had been: later time." in card

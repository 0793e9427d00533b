"""Search: which family, with which settings, finds faults earliest at the same budget of false alarms.

    candidate x fold -> fit -> tail of healthy scores -> threshold for the budget -> false alarms and sensitivity, held out

A fold holds machines or later days back; nothing is judged on what it was fitted to. The board ranks by S50, the severity from
which half of a fault's windows are found, on average over the faults. The plain limit on RMS values is always on it, and a
candidate heavier than `pca`, larger or with a memory, is chosen only where it beats `pca` in every fold.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.clock import Moment
from agent.decision.rate import poisson_interval
from agent.decision.threshold import Persistence, Tail, fit_tail, probability_per_decision
from firmware_bridge.registry import module_named
from training import families
from training.dataset import TrainingRefused
from training.graph import Graph, starts_of
from training.learned import F64, Learned, Vectors, healthy_contributions, joined, rounded, scores_of
from training.metrics import independent_count
from training.sensitivity import HELD_WINDOWS, Faulty, Grade, Sensitivity, held

MONTH_S = 30 * 86_400.0
PLAIN, DEFAULT = "rms_limit", "pca"
ALWAYS_TRIED = (PLAIN, "limits", DEFAULT)  # lightest first, whatever the time budget
OVER, DOUBTFUL = "over budget", "too little healthy time"
OUT_OF_TIME = "not tried: out of time"
MIN_INDEPENDENT = (
    20.0  # healthy scores under a tail, as `fit_tail` asks; those that resemble their neighbours count less
)
RANK_DECIMALS = 2  # of a severity that count when candidates are ranked


# ---------------------------------------------------------------------------------------------- candidates and folds
@dataclass(frozen=True, slots=True)
class Candidate:
    """A family with settings; its own defaults where none are named."""

    family: str
    settings: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """As it stands on the board."""
        return " ".join((self.family, *(f"{name}={value:g}" for name, value in self.settings)))

    @property
    def is_always_tried(self) -> bool:
        """Whatever the time budget: what a heavier one has to beat."""
        return self.family in ALWAYS_TRIED and not self.settings


def candidates(wanted: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """Every family by itself, the plain ones first, then each with one setting changed.

    Args: wanted: families; all that training/families holds where none is named.
    Raises: TrainingRefused: an unknown family, or one that is not fitted to data.
    """
    known = sorted(found.name for found in pkgutil.iter_modules(families.__path__))
    known = [name for name in known if hasattr(module_named(families, name), "fit")]
    order = [*(name for name in ALWAYS_TRIED if name in known), *(name for name in known if name not in ALWAYS_TRIED)]
    names = list(wanted) or order
    try:
        settings = {name: module_named(families, name).SETTINGS for name in names}
    except LookupError as error:
        raise TrainingRefused(f"family {error.args[0]}") from None
    if unfitted := [name for name in names if name not in known]:
        raise TrainingRefused(f"family {unfitted[0]}: is not fitted to data; name one of {', '.join(known)}")
    changed = [
        Candidate(name, ((setting, value),))
        for name in names
        for setting, values in settings[name].items()
        for value in values[1:]
    ]
    return (*(Candidate(name) for name in names), *changed)


class Stretch(NamedTuple):
    """Some of a machine's windows after learning."""

    machine: Learned
    part: slice = slice(None)


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What a candidate is fitted to, what its threshold comes from, and what it is judged on.

    Attributes:
        name: what is held back.
        fit: healthy sequences. tail: healthy time that the model has not seen. check: healthy time that neither has seen.
        faulty: of the machines in `check`.
        no_memory: why a model with a memory cannot be judged here; empty where it can. Where nothing slow is in the windows (the
            weather, the load), a model that averages is praised for what a plant would not let it do.
    """

    name: str
    fit: tuple[Vectors, ...]
    tail: tuple[Stretch, ...]
    check: tuple[Stretch, ...]
    faulty: tuple[Faulty, ...]
    no_memory: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What every candidate has to keep: budget, persistence, how often is decided, and how it is fitted."""

    column_names: tuple[str, ...]
    model_name: str
    false_alarms_per_machine_month: float
    decision_interval_s: float
    k: int
    m: int
    seed: int

    @property
    def window_probability(self) -> float:
        """How often one healthy window may exceed the threshold."""
        per_month = MONTH_S / self.decision_interval_s
        return probability_per_decision(self.false_alarms_per_machine_month, per_month, self.k, self.m)


# ---------------------------------------------------------------------------------------------- one unit of work
@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One candidate in one fold.

    Attributes:
        typical: see `healthy_contributions`. references: of the machines in `tail`, the upper normal scores.
        tail_ratios, check_ratios: scores as multiples of the machine's own upper normal score, stretch by stretch.
        found: by fault, severity and machine, which windows exceeded the threshold. faulty_ratios: their scores, all together.
        n_alarms: with persistence, on `check`.
    """

    graph: Graph
    settings: Mapping[str, Any]
    typical: tuple[float, ...]
    tail: Tail
    threshold_x: float
    references: tuple[float, ...]
    tail_ratios: tuple[F64, ...]
    check_ratios: tuple[F64, ...]
    found: tuple[tuple[Grade, NDArray[np.bool_]], ...]
    faulty_ratios: F64
    n_alarms: int

    @property
    def n_check(self) -> int:
        """Healthy windows that it was judged on."""
        return sum(map(len, self.check_ratios))


class Failed(NamedTuple):
    """Why a candidate could not be tried."""

    reason: str


def attempt(terms: Terms, unit: tuple[Candidate, Fold]) -> Trial | Failed:
    """One unit of work; it shares nothing, so it may run in any process."""
    candidate, fold = unit
    try:
        graph, settings = fitted(terms, candidate, fold.fit)
        if graph.n_state and fold.no_memory:
            return Failed(f"has a memory, and {fold.no_memory}")
        return judged(terms, graph, settings, fold)
    except ValueError as error:
        return Failed(str(error))


def fitted(terms: Terms, candidate: Candidate, pool: Sequence[Vectors]) -> tuple[Graph, dict[str, Any]]:
    """The candidate's model on healthy deviations, and what belongs on its card. Raises: ValueError: it cannot be fitted."""
    z, mask = joined(pool)
    starts = starts_of([len(part) for part, _ in pool])
    healthy = families.Healthy(z, mask, terms.column_names, terms.seed, starts)
    fit = module_named(families, candidate.family).fit(healthy, **dict(candidate.settings))
    return fit.graph(terms.model_name), fit.settings()


def judged(terms: Terms, graph: Graph, settings: Mapping[str, Any], fold: Fold) -> Trial:
    """Threshold from the tail, then false alarms and sensitivity where neither model nor threshold has been."""
    typical = healthy_contributions(graph, fold.fit)
    of_tail = [(machine.referenced(graph, typical), part) for machine, part in fold.tail]
    of_check = [(machine.referenced(graph, typical), part) for machine, part in fold.check]
    tail_ratios = tuple(ratios[part] for (_, ratios), part in of_tail)
    check_ratios = tuple(ratios[part] for (_, ratios), part in of_check)
    tail = rounded_tail(fit_tail(np.concatenate(tail_ratios)))
    threshold_x = tail.quantile(terms.window_probability)
    faulty_ratios = _faulty_ratios(graph, fold.faulty, [reference for (reference, _), _ in of_check])
    return Trial(
        graph=graph,
        settings=settings,
        typical=typical,
        tail=tail,
        threshold_x=threshold_x,
        references=tuple(reference for (reference, _), _ in of_tail),
        tail_ratios=tail_ratios,
        check_ratios=check_ratios,
        found=tuple(
            (item.grade, ratios > threshold_x) for item, ratios in zip(fold.faulty, faulty_ratios, strict=True)
        ),
        faulty_ratios=np.concatenate(faulty_ratios),
        n_alarms=sum(n_alarms(ratios > threshold_x, terms.k, terms.m) for ratios in check_ratios),
    )


def _faulty_ratios(graph: Graph, faulty: Sequence[Faulty], references: Sequence[float]) -> list[F64]:
    """Scores of all faulty sequences at once, without the windows in which the fault was held before it is judged."""
    sequences = [held(item.vectors) for item in faulty]
    starts = starts_of([len(z) for z, _ in sequences])
    scores = np.split(scores_of(graph, joined(sequences), starts), starts[1:])
    return [of[HELD_WINDOWS:] / references[item.at] for item, of in zip(faulty, scores, strict=True)]


def n_alarms(exceeds: NDArray[np.bool_], k: int, m: int) -> int:
    """How many alarms these decisions of one machine would have raised: a standing one is not raised again."""
    persistence, standing, count = Persistence(k, m), False, 0
    for one in exceeds.tolist():
        raised = persistence.step(one, Moment(0, 0))
        count += int(raised and not standing)
        standing = raised
    return count


def rounded_tail(tail: Tail) -> Tail:
    """Four significant digits, as `rounded`."""
    return Tail(
        location=rounded(tail.location),
        scale=rounded(tail.scale),
        shape=rounded(tail.shape),
        exceedance_rate=rounded(tail.exceedance_rate),
        n=tail.n,
    )


# ---------------------------------------------------------------------------------------------- the board
@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A line of the board: a candidate over all folds, or why it has no figures.

    Attributes:
        note: why it was not tried, or could not be; empty where it has figures. trials: one a fold.
        sensitivity: over all folds together.
    """

    candidate: Candidate
    terms: Terms
    note: str = ""
    trials: tuple[Trial, ...] = ()
    sensitivity: Sensitivity = field(default_factory=lambda: Sensitivity({}))

    @classmethod
    def of(cls, candidate: Candidate, terms: Terms, outcomes: Sequence[Trial | Failed]) -> Entry:
        """From what came of it in all folds."""
        failed = next((outcome for outcome in outcomes if isinstance(outcome, Failed)), None)
        if failed is not None:
            return cls(candidate, terms, failed.reason)
        trials = tuple(outcome for outcome in outcomes if isinstance(outcome, Trial))
        return cls(candidate, terms, "", trials, Sensitivity.of(item for trial in trials for item in trial.found))

    @property
    def s50_by_fold(self) -> tuple[float, ...]:
        """Mean S50 in each fold."""
        return tuple(Sensitivity.of(trial.found).mean(0.5) for trial in self.trials)

    @property
    def n_alarms(self) -> int:
        """On healthy time held out, with persistence."""
        return sum(trial.n_alarms for trial in self.trials)

    @property
    def machine_months(self) -> float:
        """How much healthy time was held out."""
        return sum(trial.n_check for trial in self.trials) * self.terms.decision_interval_s / MONTH_S

    @property
    def interval(self) -> tuple[float, float]:
        """False alarms a machine-month: the rate is within, and each end is a one-sided 95 % limit."""
        return poisson_interval(self.n_alarms, self.machine_months)

    @property
    def is_over_budget(self) -> bool:
        """More false alarms than chance explains: even the interval's lower end is above the budget."""
        return self.interval[0] > self.terms.false_alarms_per_machine_month

    @property
    def n_independent(self) -> float:
        """How many independent healthy scores its threshold rests on, in the fold with fewest."""
        return min(independent_count(trial.tail_ratios) for trial in self.trials)

    @property
    def is_doubtful(self) -> bool:
        """Too few of them: a model with a memory needs more healthy time before its threshold can be believed."""
        return self.n_independent < MIN_INDEPENDENT

    @property
    def n_bytes(self) -> int:
        """Of the model's numbers."""
        return sum(array.nbytes for array in self.trials[0].graph.constants.values())

    def is_heavier_than(self, other: Entry) -> bool:
        """Larger, or with a memory where the other has none: it takes longer to have its threshold proved, and to forget."""
        n_state, of_other = (entry.trials[0].graph.n_state for entry in (self, other))
        return self.n_bytes > other.n_bytes or n_state > of_other

    @property
    def n_operations(self) -> int:
        """For one window, about: every weight of a layer once, every other output once."""
        graph = self.trials[0].graph
        widths = graph.widths()
        weights = sum(array.size for array in graph.constants.values() if array.shape[0] > 1)
        return weights + sum(widths[node.output] for node in graph.nodes)

    @property
    def flag(self) -> str:
        """What speaks against it, in a few words; empty where nothing does."""
        if self.is_over_budget:
            return OVER
        return DOUBTFUL if self.is_doubtful else ""

    @property
    def rank(self) -> tuple[Any, ...]:
        """The smaller the better: within budget, believable, S50, S90, size, cost. A hundredth of severity is no difference."""
        s50, s90 = (round(self.sensitivity.mean(share), RANK_DECIMALS) for share in (0.5, 0.9))
        return self.is_over_budget, self.is_doubtful, s50, s90, self.n_bytes, self.n_operations


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """The leaderboard. `entries`: ranked, those without figures last. `reason`: why the winner ships, in a sentence."""

    entries: tuple[Entry, ...]
    winner: Entry
    reason: str
    folds: tuple[str, ...]

    @property
    def ranked(self) -> tuple[Entry, ...]:
        """Those with figures, best first."""
        return tuple(entry for entry in self.entries if not entry.note)

    @property
    def without_figures(self) -> dict[str, str]:
        """Why candidates have no figures -> their labels."""
        found: dict[str, list[str]] = {}
        for entry in self.entries:
            found.setdefault(entry.note, []).append(entry.candidate.label)
        return {note: ", ".join(labels) for note, labels in found.items() if note}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much may be spent on a search, and who is told how far it is."""

    out_of_time: Callable[[], bool] = lambda: False
    progress: Callable[[str, int, int], None] = lambda what, done, total: None  # what is done now, steps done, in all
    n_jobs: int = 1  # processes


IN_FULL = Effort()


@contextmanager
def workers(n_jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """As `map`, over so many processes; results come in order, so their number changes nothing."""
    if n_jobs == 1:
        yield map
        return
    with ProcessPoolExecutor(n_jobs) as pool:
        yield pool.map


def search(folds: Sequence[Fold], tried: Sequence[Candidate], terms: Terms, effort: Effort = IN_FULL) -> Board:
    """Try the candidates in turn as long as there is time; the plain ones and the default are tried in any case.

    Raises: TrainingRefused: none of them could be fitted.
    """
    entries: list[Entry] = []
    with workers(effort.n_jobs) as each:
        for first in range(0, len(tried), effort.n_jobs):
            batch = tried[first : first + effort.n_jobs]
            effort.progress(f"trying {batch[0].label}", first, len(tried))
            if effort.out_of_time() and not any(one.is_always_tried for one in batch):
                entries += [Entry(candidate, terms, OUT_OF_TIME) for candidate in batch]
                continue
            units = list(product(batch, folds))
            outcomes = list(each(partial(attempt, terms), units))
            by_candidate = [outcomes[at : at + len(folds)] for at in range(0, len(outcomes), len(folds))]
            entries += [Entry.of(one, terms, found) for one, found in zip(batch, by_candidate, strict=True)]
    effort.progress("ranked", len(tried), len(tried))
    return _board(entries, folds)


def _board(entries: Sequence[Entry], folds: Sequence[Fold]) -> Board:
    ranked = sorted((entry for entry in entries if not entry.note), key=lambda entry: entry.rank)
    if not ranked:
        why = "; ".join(f"{entry.candidate.label}: {entry.note}" for entry in entries)
        raise TrainingRefused(f"no family could be fitted ({why}); collect for longer, or for fewer columns")
    winner, reason = _chosen(ranked)
    others = [entry for entry in entries if entry.note]
    return Board((*ranked, *others), winner, reason, tuple(fold.name for fold in folds))


def _chosen(ranked: Sequence[Entry]) -> tuple[Entry, str]:
    """The first of the board, unless it is heavier than the default and did not beat it everywhere; and why."""
    first = ranked[0]
    default = next((entry for entry in ranked if entry.candidate.family == DEFAULT), first)
    plain = next((entry for entry in ranked if entry.candidate.family == PLAIN), None)
    winner, lead = first, ""
    of_both = zip(first.s50_by_fold, default.s50_by_fold, strict=True)
    is_better = all(round(own, RANK_DECIMALS) < round(other, RANK_DECIMALS) for own, other in of_both)
    if first.is_heavier_than(default) and not default.flag and not is_better:
        winner = default
        lead = f"{first.candidate.label} leads, but is heavier than {winner.candidate.label} and does not beat it in every fold. "
    if plain is winner:
        return winner, f"{lead}Nothing beat the plain limit on RMS values ({PLAIN}), so it ships.{_but(winner)}"
    reason = f"{lead}{winner.candidate.label} ships: a mean S50 of {winner.sensitivity.mean(0.5):.3f}"
    if plain:
        reason += f" against {plain.sensitivity.mean(0.5):.3f} of the plain limit on RMS values ({PLAIN})"
    return winner, f"{reason}, at the same budget of false alarms.{_but(winner)}"


def _but(first: Entry) -> str:
    if first.is_over_budget:
        return f" But all raised more false alarms than the budget allows, it {first.n_alarms}: look at what is healthy here."
    return (
        " But its threshold rests on too little healthy time: train again when there is more."
        if first.is_doubtful
        else ""
    )

"""The model card: what a model is for, what it was made from, how it did, and where it ends; in Markdown."""

from __future__ import annotations

from agent.inference.bundle import Manifest

INTENDED_USE = """\
Tells how unlike its own healthy past a {machine_type} has become, one window at a time, and which columns say so. It
runs on the gateway, beside fast protective limits that do not depend on it. The score is not a probability, not a
remaining life and
not a safety function: nobody may be kept safe by it."""

LIMITS = """\
- It knows only the columns below. A fault that moves none of them is not seen.
- Its input is referred to the machine's own baseline in its operating state; a machine that was already damaged when
its
  baseline was learned counts as healthy. The agent refuses to learn a machine in zone C or D without a typed reason.
- {origin}
- The tail of healthy scores was fitted to {n_windows} windows of {n_machines} machine(s); thresholds for budgets far
below one
  false alarm in that much time are an extrapolation."""

SIMULATED = """\
It was trained on simulated machines. It is a start for day one; train a site bundle as soon as real windows are
there."""
COLLECTED = """\
It was trained on one plant's machines and their seasons so far; other plants need their own."""


def card_text(manifest: Manifest) -> str:
    """The card of a bundle, from nothing but its manifest."""
    made = manifest.provenance
    is_simulated = made.source.startswith("simulator")
    limits = LIMITS.format(
        origin=SIMULATED if is_simulated else COLLECTED,
        n_windows=manifest.tail.n,
        n_machines=made.settings.get("n_tail_machines", 1),
    )
    metrics = [f"| {metric.name} | {metric.value:g} {metric.unit} |" for metric in manifest.metrics]
    columns = [
        f"| `{column.name}` | {column.version} | {column.transform} | {column.scale_floor:g} |"
        for column in manifest.columns
    ]
    settings = ", ".join(f"{name} = {value}" for name, value in sorted(made.settings.items()))
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        "## Intended use",
        INTENDED_USE.format(machine_type=manifest.machine_type),
        "",
        "## Data",
        f"{made.source}, data version {made.data_version}, seed {made.seed}, data up to {manifest.created_utc}.",
        "",
        "## Model",
        f"Family `{made.family}` ({settings}); float32, the same graph as ONNX (opset 17) and TFLite.",
        f"Persistence {manifest.k} of {manifest.m} windows; {manifest.learn_windows} windows are learned per state;",
        f"the figures below are for {manifest.false_alarms_per_machine_month:g} false alarms per machine and month.",
        "",
        "## Metrics",
        "On machines or days that were not trained on.",
        "",
        "| figure | value |",
        "|---|---|",
        *metrics,
        "",
        "## Limits",
        limits,
        "",
        "## Columns",
        "| column | version | transform | smallest scale |",
        "|---|---|---|---|",
        *columns,
        "",
        "## Provenance",
        f"Made by {made.code}, with "
        + ", ".join(f"{name} {version}" for name, version in made.libraries.items())
        + ".",
        "",
    ]
    return "\n".join(lines)

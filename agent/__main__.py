"""The command `hark`: looks its verbs up by name and imports only the room that a verb belongs to.

Every verb: --json, and exit codes 0 ok, 1 problem found, 2 usage or configuration, 3 cannot reach; `run` ends with 70 when a
stage hangs (watchdog.py). Never a traceback for what a person can mend.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import live
from agent.errors import exit_code_of
from firmware_bridge.errors import MissingExtra

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# One BLAS thread: matrices here are tiny. Set before NumPy is imported, by whichever verb does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

EXIT_USAGE = 2
# package that is missing -> extra that brings it
EXTRAS = {
    "amqtt": "sim",
    "onnxruntime": "onnx",
    "ai_edge_litert": "tflite",
    "starlette": "ui",
    "uvicorn": "ui",
    **dict.fromkeys(
        ("sklearn", "onnx", "flatbuffers", "optuna", "pyarrow", "deltalake", "dask", "distributed", "rich"), "train"
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Console script: `hark VERB ...`; or what the process of `hark run` goes on as (agent/live.py)."""
    orders = live.orders_given()
    if orders is not None:
        sys.exit(exit_code_of("run", partial(live.resident, orders)))
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments), own_process=arguments is None))


def run(arguments: Sequence[str], own_process: bool = False) -> int:
    """Run one verb and give its exit code. `own_process`: this process is here for the verb alone, and may be replaced."""
    from importlib.metadata import entry_points, version

    verbs = {point.name: point for point in entry_points(group="hark.commands")}
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(verbs))
        return 0 if arguments else EXIT_USAGE
    if arguments[0] in ("-V", "--version"):
        print(f"hark {version('hark-edge')}")
        return 0
    verb, *rest = arguments
    if verb not in verbs:
        print(f"hark: no verb {verb!r}; it has {', '.join(sorted(verbs))}", file=sys.stderr)
        return EXIT_USAGE
    return exit_code_of(verb, lambda: _invoke(verb, _loaded(verbs[verb]), rest, own_process))


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtra(f"hark {point.name}", package, EXTRAS[package]) from None


def _invoke(verb: str, target: Any, arguments: Sequence[str], own_process: bool) -> int:
    import typer

    app = target
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command()(target)
    command = typer.main.get_command(app)
    try:
        result = command.main(list(arguments), f"hark {verb}", standalone_mode=False, obj=own_process)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtra(f"hark {verb}", package, EXTRAS[package]) from None
    except Exception as error:
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):  # click's own usage errors
            raise
        error.show()
        return int(error.exit_code)
    return int(result) if isinstance(result, int) else 0


def _overview(verbs: dict[str, EntryPoint]) -> str:
    from importlib.metadata import version

    lines = [
        f"hark {version('hark-edge')}: listens to motors and pumps, says what is wrong and what to do",
        "",
        "verbs:",
    ]
    lines += [f"  {name:<10} {_summary(point)}" for name, point in sorted(verbs.items())]
    return "\n".join([*lines, "", "hark VERB --help tells more; every verb takes --json"])


def _summary(point: EntryPoint) -> str:
    """The first docstring line of a verb, read from its file's text, so that help imports no room."""
    spec = importlib.util.find_spec(point.module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == point.attr for t in node.targets):
            helps = [k.value for k in getattr(node.value, "keywords", []) if k.arg == "help"]
            return str(ast.literal_eval(helps[0])) if helps else ""
    return ""


if __name__ == "__main__":
    main()

"""The `ieadapt` program: finds the command, runs it, and turns every error into one line and an exit status.

Only the module of the requested command is imported, so that `ieadapt --help` does not wait for torch.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NoReturn

import typer

from ieadapt import __version__
from ieadapt.errors import IEAdaptError, IEAdaptWarning
from ieadapt.runs.notes import libraries_heard, noted

COMMANDS = {
    "models": "List the bundled models and the model families that can be measured and enhanced.",
    "sites": "List the attention sites of a model.",
    "measure": "Measure entropy and energy of every attention site of a model.",
    "maps": "Draw the attention maps of one site: where tokens look, in space, in time and in the prompt.",
    "perturb": "Generate videos as they are and with chosen attention maps replaced, side by side.",
    "enhance": "Generate videos plain and enhanced, side by side.",
    "edit": "Change a video to what a sentence says, and nothing else.",
    "screen": "Predict what each layer does, from a few extra passes per layer; the price is said first.",
    "tune": "Find an enhancement for a model on half of the prompts, and prove it on the other half.",
    "study": "Find out what each layer does: replace its attention, and measure how far the videos move.",
    "evaluate": "Measure any folder of videos, alone or against a reference, with intervals.",
    "compare": "Compare two folders of videos, pair by pair: every metric with its difference and interval.",
    "bench": "Benchmarks that papers use: VBench, and sets of edits.",
    "web": "Measure, perturb, enhance and edit in a browser, on this machine.",
    "demo": "Measure, enhance and edit with the bundled model, in a few minutes on two cores.",
}

MODULES = {"evaluate": "scoring", "compare": "scoring", "bench": "scoring", "web": "web"}
"""Modules of the commands that are not in `commands`."""
GROUPS = ("bench",)
"""Commands that have commands of their own."""
STOPPED = 130
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "warning",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
}
"""Settings of the libraries in this process and in the workers that it starts, by environment variables."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ieadapt` and return its exit status: 0 done, 1 failed, 2 a bad request, 130 stopped."""
    return run_program(_application, arguments)


def run_program(
    application: Callable[[str | None], typer.Typer], arguments: Sequence[str] | None = None, name: str = "ieadapt"
) -> int:
    """Run a program, given what makes its commands for the first word of the command line; returns its exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in typed
    typed = [argument for argument in typed if argument != "--debug"]
    try:
        _stop_on_terminate()
        words = typed or os.environ.get("COMP_WORDS", os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()[1:]
        requested = next((word for word in words if not word.startswith("-")), None)
        quiet = requested is not None and not debug
        with _libraries_quiet() if quiet else noted():
            program, heard = application(requested), libraries_heard if quiet else contextlib.nullcontext
            status = int(program(args=typed, prog_name=name, standalone_mode=False, obj=heard) or 0)
        if status == STOPPED:
            raise KeyboardInterrupt
        return status
    except (KeyboardInterrupt, typer.Abort):
        _say("stopped")
        return STOPPED
    except Exception as error:
        if debug:
            traceback.print_exc()
        line, status = _explain(error)
        _say(line)
        return status


def _application(requested: str | None) -> typer.Typer:
    """All commands; the requested one real, the others by name and summary only."""
    app = typer.Typer(
        name="ieadapt",
        help="See what every attention layer of a video diffusion model does, and use what is seen.\n\n"
        "`ieadapt COMMAND --help` explains a command and shows an example. `--debug` anywhere shows tracebacks and the "
        "libraries' own messages.",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode="markdown",
    )
    app.callback()(_options)
    for name, summary in COMMANDS.items():
        if name != requested:
            app.command(name, help=summary)(_never_called)
            continue
        command = getattr(importlib.import_module(f"ieadapt.cli.{MODULES.get(name, 'commands')}"), name)
        if name in GROUPS:
            app.add_typer(command, name=name, help=f"{summary}\n\n{command.info.help}")
        else:
            app.command(name, help=f"{summary}\n\n{command.__doc__}")(command)
    return app


def _print_version(requested: bool) -> bool:
    if requested:
        print(f"ieadapt {__version__}")
        raise typer.Exit
    return requested


def _options(
    version: Annotated[bool, typer.Option("--version", help="print the version", callback=_print_version)] = False,
) -> None:
    """The options of the program itself."""


def _never_called() -> NoReturn:
    raise AssertionError("the requested command is always the real one")


def _explain(error: Exception) -> tuple[str, int]:
    """An error as one line and an exit status."""
    if isinstance(error, IEAdaptError):
        return str(error), error.exit_code
    explain = getattr(error, "format_message", None)  # the parser's own errors, whatever module defines them
    if explain is not None:
        return f"{explain()} (see --help)", 2
    return f"{type(error).__name__}: {error} (--debug shows where)", 1


def _say(text: str) -> None:
    """Print a text on standard error as one line."""
    print(f"ieadapt: {' '.join(text.split())}", file=sys.stderr)


@contextlib.contextmanager
def _libraries_quiet() -> Iterator[None]:
    """Progress bars and deprecations are not for the reader of a result; our notes are, whatever Python is told."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            os.environ.setdefault("PYTHONWARNINGS", "ignore")
        warnings.simplefilter("always", IEAdaptWarning)
        with noted(lambda note: _say(f"note: {note}")):
            yield


def _stop_on_terminate() -> None:
    """Let SIGTERM end a run as Ctrl-C does, so that its folder is marked partial."""

    def stop(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: whoever started it handles signals
        return

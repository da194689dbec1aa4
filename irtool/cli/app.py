"""The command `irtool`: its verbs, and what becomes of an error."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from ..errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, IrtoolError, explained
from .compare import compare
from .degrade import degrade
from .detect import detect
from .doctor import doctor
from .download import download
from .eval import eval
from .export import export
from .gather import gather
from .info import info
from .instruct import instruct
from .models import models
from .output import debugging, discard_stdout, print_bug, print_error
from .presets import ConfiguredCommand, presets
from .restore import restore
from .serve import serve
from .train import train

app = typer.Typer(rich_markup_mode=None)
app.command(cls=ConfiguredCommand)(restore)
app.command(cls=ConfiguredCommand)(instruct)
for verb in (
    detect, serve, models, download, degrade, compare, eval, gather, export, info, doctor,
):  # fmt: skip
    app.command()(verb)
app.add_typer(presets, name="presets")
app.add_typer(train, name="train")


def _version(requested: bool) -> None:
    if requested:
        print(f"irtool {__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog="Exit codes: 0 all done, 1 some pictures failed, 2 usage, 3 model or data unavailable, 4 nothing to do, "
    "130 interrupted. IRTOOL_DEBUG=1 shows tracebacks.",
)
def irtool(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Finds what is wrong with a photograph and puts it right.

    irtool restore photo.jpg --auto
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` are `sys.argv[1:]` unless given."""
    _prepare_streams()
    _catch_signals()
    try:
        code = typer.main.get_command(app).main(
            args=None if arguments is None else list(arguments),
            prog_name="irtool",
            standalone_mode=False,
            windows_expand_args=False,  # patterns are matched by irtool.picture.find, the same everywhere
        )
        sys.stdout.flush()
        return int(code or EXIT_OK)
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__ or error.__context__, EOFError):  # what typer makes of a file that ends too early
            print_bug(error.__cause__ or error.__context__)  # type: ignore[arg-type]
            return EXIT_SOME_FAILED
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _quietly()
    except Exception as error:
        # Typer's own errors have no public base class in all its versions; they know how to say what is wrong.
        if hasattr(error, "format_message"):
            return _misused(error)
        known = explained(error)
        if known is None:
            print_bug(error)
            return EXIT_SOME_FAILED
        print_error(known)
        if isinstance(error, OSError):
            discard_stdout()  # it may be what cannot be written
        return known.exit_code


def _prepare_streams() -> None:
    # Closed by the caller: what is printed goes nowhere, and no file that is opened later takes their place.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal cannot show must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _catch_signals() -> None:
    """To be asked to end, or to lose the terminal, is handled like Ctrl-C: nothing half-written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup has it ignored, and it stays so.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _misused(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "irtool"
    if debugging():
        traceback.print_exception(error)
    print_error(IrtoolError(error.format_message(), f"{path} --help"))  # type: ignore[attr-defined]
    return int(getattr(error, "exit_code", EXIT_USAGE))


def _quietly() -> int:
    """The reader of our output has gone: end without a word."""
    discard_stdout()
    return EXIT_SOME_FAILED

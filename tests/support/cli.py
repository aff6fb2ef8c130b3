"""The command line in this process: no second import of torch, and what it printed as values."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmres2net.cli import main


@dataclass(frozen=True)
class CliResult:
    status: int
    out: str
    err: str


def run_cli(*args: str | os.PathLike[str], cwd: Path | None = None) -> CliResult:
    """Run ``mmres2net ARGS``, in the folder ``cwd`` if one is given; errors of argparse give their exit status too."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _in_folder(cwd):
        try:
            status = main([os.fspath(arg) for arg in args])
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return CliResult(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _in_folder(folder: Path | None) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder or before)
    try:
        yield
    finally:
        os.chdir(before)

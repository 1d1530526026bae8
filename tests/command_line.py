"""The command line as tests call it, in this process
or in one of its own, and what a refusal looks like.
"""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner, Result

from relax_quantus.cli import main as cli

FEW = ("--n-samples", "6", "--masks", "time")
PROGRAM = (sys.executable, "-m", "relax_quantus")


def call(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


def problems(result: Result | subprocess.CompletedProcess[str]) -> str:
    """Return what stderr says, but for the answer that
    nothing stands out, which few masks mostly give.
    """
    return "".join(line for line in result.stderr.splitlines(keepends=True) if "nothing stands out" not in line)


def refused(result: Result, *parts: str, code: int | None = None) -> str:
    """Check that the command was refused in exactly
    one plain line on stderr that contains all `parts`.
    """
    assert result.exit_code in ((1, 2) if code is None else (code,)), result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "unexpected" not in lines[0]
    for part in parts:
        assert part in lines[0]
    return lines[0]

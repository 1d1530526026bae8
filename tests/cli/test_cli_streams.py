"""Streams that are closed or break, stops that get lost, and
options with numbers: none of it ends the work or hides how it went.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from command_line import FEW, call, refused, run

from relax_quantus.cli import console
from relax_quantus.cli import main as cli
from relax_quantus.cli.main import options

pytestmark = pytest.mark.usefixtures("one_thread")


# Streams


class Broken(io.StringIO):
    """A stream whose writes fail."""

    def __init__(self, problem: Exception) -> None:
        super().__init__()
        self.problem = problem

    def flush(self) -> None:
        raise self.problem


PROBLEMS = [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.EIO, "I/O error"), ValueError("closed file")]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_a_broken_stream_does_not_take_is_dropped(
    name: str, problem: Exception, tmp_path: Path, tone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, name, Broken(problem))
    (tmp_path / "bad.wav").write_text("no sound")
    arguments = [str(a) for a in ("explain", tmp_path / "bad.wav", tone(), "--out", tmp_path / "out", *FEW)]
    assert cli.app(arguments, standalone_mode=False) == 1, "a recording failed"
    assert (tmp_path / "out" / "tone.png").is_file()
    assert isinstance(getattr(sys, name), Broken)


@pytest.mark.parametrize(("problem", "code"), zip(PROBLEMS, (141, 1, 0), strict=True))
def test_the_exit_code_of_work_that_went_well(
    problem: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(problem))
    assert cli.app(["list", "masks"], standalone_mode=False) == code
    assert capsys.readouterr().err == (
        "error: stdout: I/O error; the rest of what was to be printed is lost\n" if code == 1 else ""
    )


def test_no_streams_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.app(["list", "masks"], standalone_mode=False) == 0
    assert cli.app(["list", "maks"], standalone_mode=False) == 2
    assert (sys.stdout, sys.stderr) == (None, None)
    console.warning("outside of the command line, too")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_descriptors_are_not_taken_by_files(closed: tuple[int, ...], tmp_path: Path) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    code = (
        "import os, sys\nfrom relax_quantus.cli.main import main\nsys.argv = ['x', *sys.argv[1:]]\n"
        "try: main()\nfinally: open('free', 'w').write(str(os.open('free', os.O_RDONLY)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "list", "masks"],
        preexec_fn=close,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0
    assert int((tmp_path / "free").read_text()) > 2


def test_a_stream_that_lasts_delegates_and_remembers() -> None:
    good, bad = console.Lasting(io.StringIO()), console.Lasting(Broken(OSError(errno.ENOSPC, "full")))
    print("a", file=good, flush=True)  # type: ignore[call-overload]
    assert good.getvalue() == "a\n"
    bad.flush()
    bad.writelines(["b", "c"])
    assert isinstance(bad.problem, OSError)
    assert bad.getvalue() == ""
    assert not bad.isatty()


def test_a_notebooks_matplotlib_backend_is_not_inherited(tone: Callable[..., Path], tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": "of_a_notebook"}
    done = run("explain", tone(), "--out", tmp_path / "out", "--masks", "time", "--n-samples", 60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


# Stops


@pytest.fixture
def heeded() -> Iterator[None]:
    """Signals as the command line takes them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console.heed_signals()
    yield
    console.answered()
    for number, handler in before.items():
        signal.signal(number, handler)


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def swallowed(number: int) -> None:
    """A library's callback in which a signal arrives: what it raises goes no further."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_stop_that_a_callback_swallowed_ends_the_run(
    number: int, code: int, tone: Callable[..., Path], odd_encoder: Callable[..., str], tmp_path: Path
) -> None:
    calls = []

    def embed(h: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            swallowed(number)
        return h

    clips = tone("a.wav"), tone("b.wav")
    result = call("explain", *clips, "--out", tmp_path / "out", "--encoder", odd_encoder(embed), *FEW)
    assert result.exit_code == code
    assert result.stderr == "error: interrupted; what was written before is kept\n"
    assert result.stdout == ""
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_stop_that_became_another_error_is_a_stop(
    number: int, code: int, tone: Callable[..., Path], odd_encoder: Callable[..., str], tmp_path: Path
) -> None:
    def embed(h: object) -> object:
        swallowed(number)
        raise RuntimeError("a callback failed")

    result = call("explain", tone(), "--out", tmp_path / "out", "--encoder", odd_encoder(embed), *FEW)
    assert (result.exit_code, result.stderr) == (code, "error: interrupted; what was written before is kept\n")


@pytest.mark.usefixtures("heeded")
def test_a_stop_waits_for_what_must_not_be_done_by_halves() -> None:
    done = []

    def work() -> None:
        with console.held():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            console.result("not here")
            done.append(1)

    with pytest.raises(console.Terminated):
        work()
    assert done == [1]
    with console.Progress(3, "a", "b") as bar, pytest.raises(console.Terminated):
        bar.update()
    assert console.answered() is console.Terminated
    console.raise_if_asked()


def test_ctrl_c_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        console.heed_signals()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# How it is asked


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_the_first_line_of_help_has_no_loose_brackets(command: str) -> None:
    usage = call(command, "--help").stdout.split("\n\n")[0]
    assert "{" not in usage
    assert "}" not in usage
    for opening, closing in ("[]", "<>"):
        assert usage.count(opening) == usage.count(closing)


WANTED = {"explain": ["x", "--out", "y"], "fit": ["x", "--out", "y"], "bench": [], "report": ["x"], "list": ["masks"]}
NUMBERED = [
    (command, f"--{option.name.replace('_', '-')}", float in get_args(get_args(annotation)[0]))
    for command, request in cli.COMMANDS.items()
    for option, _, annotation in options(request)
    if {int, float} & {get_args(annotation)[0], *get_args(get_args(annotation)[0])}
]


@pytest.mark.parametrize(("command", "option", "decimal"), NUMBERED)
@pytest.mark.parametrize("text", ["abc", "", "0,5", "1 000", "0x10"])
def test_what_is_no_number_is_refused_in_our_words(command: str, option: str, decimal: bool, text: str) -> None:
    rule = "a number" if decimal else "a whole number"
    refused(call(command, *WANTED[command], f"{option}={text}"), f"{option}: expected {rule}, got {text!r}; ", code=2)


def test_numbers_that_nothing_can_count_to_are_refused() -> None:
    assert len(NUMBERED) > 9
    refused(call("explain", "x", "--out", "y", "--seed", 2**63), "--seed: expected a whole number below 2**63", code=2)

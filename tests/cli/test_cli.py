"""The command line itself: help, names, and that whatever
goes wrong is one plain line on stderr and an exit code.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import FEW, PROGRAM, call, problems, refused, run

import relax_quantus
from relax_quantus.encoders import ENCODERS

pytestmark = pytest.mark.usefixtures("one_thread")


# Help


@pytest.mark.parametrize("command", ["explain", "fit", "bench", "list"])
def test_help_shows_an_example_and_every_option_is_explained(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"relax-quantus {command} " in result.stdout.split("Examples:")[1]


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    heavy = "torch numpy quantus matplotlib sklearn pandas soundfile captum scipy"
    script = (
        "import sys\nfrom relax_quantus.cli.main import app\n"
        "try:\n    app(['explain', '--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(' '.join(set('{heavy}'.split()) & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--max-examples" in done.stdout
    best = 9.0
    for _ in range(5):
        start = time.perf_counter()
        run("--help")
        best = min(best, time.perf_counter() - start)
    assert best < 1.0  # half a second on an idle machine


def test_version_and_no_arguments() -> None:
    assert call("--version").stdout == f"relax-quantus {relax_quantus.__version__}\n"
    assert "explain" in call().stdout


def test_list_names_everything_registered() -> None:
    for kind, registry in (("masks", relax_quantus.relax.masks.STRATEGIES), ("encoders", ENCODERS)):
        lines = call("list", kind).stdout.splitlines()
        assert [line.split()[0] for line in lines] == registry.names()
        assert all(registry.summary(name) in line for name, line in zip(registry.names(), lines, strict=True))
    for kind in ("fills", "estimators", "methods", "metrics"):
        assert call("list", kind).exit_code == 0


# The command line itself


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["explian", "x"], ["explian", "'explain'"]),
        (["explain", "x", "--out", "y", "--maks", "time"], ["--maks", "--masks", "relax-quantus explain --help"]),
        (["explain", "--out", "y"], ["CLIP"]),
        (["explain", "x"], ["--out"]),
        (["explain", "x", "--out", "y", "--n-samples", "many"], ["--n-samples"]),
        (["fit"], ["FOLDER"]),
    ],
)
def test_misspelt_command_lines_are_one_line_with_the_nearest(arguments: list[str], parts: list[str]) -> None:
    refused(call(*arguments), *parts, code=2)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--masks", "tiem"], ["'tiem'", "did you mean 'time'"]),
        (["--encoder", "vggish_min"], ["did you mean 'vggish_mini'"]),
        (["--baseline", "silense"], ["did you mean 'silence'"]),
        (["--n-samples", "0"], ["--n-samples", "at least 1", "got 0"]),
        (["--max-examples", "-1"], ["--max-examples", "at least 0"]),
        (["--hop", "0"], ["--hop", "above 0"]),
        (["--seed", "-1"], ["--seed", "at least 0"]),
        (["--head", "nowhere.safetensors"], ["nowhere.safetensors", "no such file"]),
    ],
)
def test_impossible_values_are_refused_before_any_work(
    arguments: list[str], parts: list[str], tone: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused(call("explain", tone(), "--out", out, *arguments), *parts)
    assert not out.exists()


def test_unknown_kind_to_list() -> None:
    refused(call("list", "mask"), "'mask'", "did you mean 'masks'")


def test_no_traceback_unless_debug(tmp_path: Path) -> None:
    plain = run("explain", tmp_path / "none.wav", "--out", tmp_path / "out", *FEW)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert len(plain.stderr.splitlines()) == 1
    assert str(tmp_path / "none.wav") in plain.stderr
    full = call("--debug", "explain", tmp_path / "none.wav", "--out", tmp_path / "out", *FEW)
    assert full.exit_code == 1
    assert "Traceback" in full.stderr
    assert full.stderr.splitlines()[-1] == plain.stderr.strip()


def test_a_defect_is_said_to_be_unexpected(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str) -> int:
        raise TypeError("two\nlines")

    monkeypatch.setattr("relax_quantus.cli.list_names.ListRequest.run", broken)
    result = call("list", "masks")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: unexpected TypeError: two lines; add --debug for the traceback\n",
    )


def heed_ctrl_c() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_is_one_line_and_keeps_what_is_done(tone: Callable[..., Path], tmp_path: Path) -> None:
    first, second = tone("a.wav"), tone("b.wav", seconds=20.0)
    process = subprocess.Popen(
        [*PROGRAM, "explain", first, second, "--out", tmp_path / "out", "--n-samples", "2000", "--masks", "random"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(tmp_path / "out" / "a.png")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines() == ["error: interrupted; what was written before is kept"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.npz", "a.png"]


def test_a_warning_is_one_plain_line(tone: Callable[..., Path], tmp_path: Path) -> None:
    result = call("explain", tone(seconds=0.2), "--out", tmp_path / "out", *FEW)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: ")
    assert len(problems(result).splitlines()) == 1
    assert "0.20 s is less than one example" in result.stderr

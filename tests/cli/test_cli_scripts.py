"""The command line in scripts and shells: --json, --quiet,
exit codes, pipes, colours, progress in a log, and completion.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command_line import problems
from typer.testing import CliRunner, Result

from relax_quantus.audio.reading import RESAMPLERS
from relax_quantus.benchmark.config import PRESETS
from relax_quantus.benchmark.report.output import FILES
from relax_quantus.cli import console
from relax_quantus.cli import main as cli
from relax_quantus.cli.list_names import HOMES
from relax_quantus.cli.options import GROUPS, NAMES, completing
from relax_quantus.encoders import ENCODERS
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.relax.call import DOMAINS
from relax_quantus.relax.estimators import ESTIMATORS
from relax_quantus.relax.execution import PRECISIONS
from relax_quantus.relax.fills import FILLS
from relax_quantus.relax.masks import STRATEGIES
from relax_quantus.relax.similarity import SIMILARITIES

FEW = ("--n-samples", "6", "--masks", "time")
PROGRAM = (sys.executable, "-m", "relax_quantus")


def call(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env=env).invoke(cli.app, [str(a) for a in arguments])


def objects(result: Result) -> list[dict[str, Any]]:
    """The lines of stdout, each one JSON object."""
    return [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def clip(write_wav: Callable[..., Path], sweep: np.ndarray) -> Path:
    return write_wav(sweep[:16_000], name="a b é.wav")


@pytest.fixture
def classes(sweep: np.ndarray, tmp_path: Path) -> Path:
    """Two classes of two recordings."""
    for label, gain in (("high", 1.0), ("low", 0.1)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(2):
            soundfile.write(tmp_path / "set" / label / f"{i}.wav", gain * sweep[1000 * i : 1000 * i + 16_000], 16_000)
    return tmp_path / "set"


# --json


def test_explain_tells_programs_of_every_clip_and_file(clip: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out", tmp_path / "bad.wav"
    bad.write_text("no sound")
    result = call("explain", clip, bad, "--out", out, *FEW, "--html", "--sounds", "--annotations", "--json")
    assert result.exit_code == 1
    good, wrong = objects(result)
    assert (good["type"], good["clip"]) == ("clip", str(clip))
    files = good["files"]
    assert set(files) == {"picture", "arrays", "page", "kept", "removed", "selections", "labels"}
    named = [v for f in files.values() for v in (f.values() if isinstance(f, dict) else [f])]
    assert sorted(named) == sorted(map(str, out.iterdir()))
    assert (wrong["type"], wrong["about"]) == ("error", str(bad))
    assert f"error: {wrong['message']}\n" == problems(result)


def test_fit_tells_programs_the_same_as_people(classes: Path, tmp_path: Path) -> None:
    people = call("fit", classes, "--out", tmp_path / "head")
    (found,) = objects(call("fit", classes, "--out", tmp_path / "head", "--json"))
    assert (found["type"], found["path"], found["fine_tuning"]) == ("classifier", str(tmp_path / "head"), None)
    assert found["classes"][1] == {"name": "low", "clips": 2, "sources": 2, "examples": 2}
    assert f"accuracy: {found['accuracy']:.1%} of examples in {len(found['fold_accuracies'])}-fold" in people.stdout


def test_benchmark_and_report_tell_programs_scores_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"methods": ("RELAX-time", "energy"), "metrics": ("Sparseness",), "head_clips": 12, "max_clips": 4}
    monkeypatch.setitem(PRESETS, "quick", small)
    monkeypatch.setattr("relax_quantus.benchmark.data.datasets.HELD_OUT_CLIPS", 6)
    (forecast,) = objects(call("bench", "--n-samples", 8, "--out", tmp_path, "--dry-run", "--json"))
    assert (forecast["type"], forecast["cells"], forecast["done"]) == ("forecast", 8, 0)
    result = call("bench", "--n-samples", 8, "--out", tmp_path, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = objects(result)
    scores = [o for o in found if o["type"] == "score"]
    assert {o["method"] for o in scores} == {"RELAX-time", "energy"}
    assert all(o["low"] is None or o["low"] <= o["mean"] <= o["high"] for o in scores)
    assert [o["path"] for o in found if o["type"] == "file"] == [str(tmp_path / name) for name in FILES]
    written = objects(call("report", tmp_path, "--no-figures", "--json"))
    assert all(o["type"] == "file" and Path(o["path"]).is_file() for o in written)


@pytest.mark.parametrize("kind", HOMES)
def test_lists_for_programs(kind: str) -> None:
    found = objects(call("list", kind, "--json"))
    assert {o["kind"] for o in found} == {kind}
    names = [o["name"] for o in found if o["used"]]
    assert call("list", kind, "--quiet").stdout.splitlines() == names
    assert [line.split("  ")[0] for line in call("list", kind).stdout.splitlines()] == [o["name"] for o in found]


def test_what_json_does_not_know_becomes_null() -> None:
    assert console.machine({"a": float("nan"), "b": [float("-inf"), 1.5], "c": Path("x"), 3: None}) == {
        "a": None,
        "b": [None, 1.5],
        "c": "x",
        "3": None,
    }


# --quiet


def test_quiet_says_nothing_but_errors(clip: Path, classes: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.sin(np.arange(3000)) / 2, 16_000)  # padded, with a warning
    done = call("explain", clip, tmp_path / "short.wav", "--out", tmp_path / "out", *FEW, "-q")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out" / "short.png").is_file()
    assert call("fit", classes, "--out", tmp_path / "head", "--quiet").output == ""
    (classes / "low" / "bad.wav").write_text("no")
    wrong = call("fit", classes, "--out", tmp_path / "head", "--quiet")
    assert (wrong.exit_code, wrong.stdout, len(wrong.stderr.splitlines())) == (1, "", 1)
    assert "bad.wav" in wrong.stderr


def test_how_to_speak_is_forgotten_after_a_command() -> None:
    call("list", "masks", "--json", "--debug")
    assert console.manner.get() == console.Manner()
    assert not console.debugging.get()
    assert not call("list", "masks").stdout.startswith("{")


# Exit codes and pipes


def test_exit_codes(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("explain", clip, "--out", out, *FEW).exit_code == 0
    assert call("explain", tmp_path / "none.wav", "--out", out, *FEW).exit_code == 1
    assert call("explain", clip, "--out", out, "--masks", "tiem").exit_code == 2
    assert call("explain", clip, "--out", out, "--tiem").exit_code == 2
    assert call("report", tmp_path / "none").exit_code == 1


def test_a_reader_that_stops_is_no_error() -> None:
    line = " ".join(PROGRAM)
    shell = f'{line} list methods | (read -r first; echo "$first"); echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    first, code = done.stdout.splitlines()
    assert first.startswith("RELAX-random")
    assert code in ("0", "141")  # 0 where the pipe took everything before it was closed


def test_writing_to_a_closed_pipe_ends_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([*PROGRAM, "list", "masks"], stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_termination_ends_as_ctrl_c_does(write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path) -> None:
    clips = [write_wav(sweep[:16_000], name="a.wav"), write_wav(np.tile(sweep, 20), name="b.wav")]
    process = subprocess.Popen(
        [*PROGRAM, "explain", *clips, "--out", tmp_path / "out", "--n-samples", "2000", "--masks", "random"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (143, "error: interrupted; what was written before is kept\n")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.npz", "a.png"]


# Colours and progress


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colour_is_the_environments_choice(
    environment: dict[str, str], on_terminal: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert console.coloured(Terminal()) == on_terminal
    assert console.coloured(io.StringIO()) == elsewhere
    assert console.painted("error:", "red", Terminal()) == ("\x1b[1;31merror:\x1b[0m" if on_terminal else "error:")


def test_an_error_is_coloured_where_it_is_wanted(tmp_path: Path) -> None:
    plain, coloured = (
        call("report", tmp_path / "none", env={"FORCE_COLOR": force, "NO_COLOR": ""}) for force in ("", "1")
    )
    assert plain.stderr.startswith("error: ")
    assert coloured.stderr == plain.stderr.replace("error:", "\x1b[1;31merror:\x1b[0m", 1)


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(console, "note", said.append)
    with console.Progress(10, "explain", "clip", 2) as bar:
        for seconds in (10, 10, 10, 10, 25, 30):
            now[0] += seconds
            bar.update()
    assert said == [
        "explain: 5 of 10 clips after 00:30, about 00:50 left",
        "explain: 7 of 10 clips after 01:05, about 00:39 left",
        "explain: 8 of 10 clips after 01:35, about 00:31 left",
    ]


def test_a_bar_on_a_terminal_and_silence_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with console.Progress(2, "explain", "clip") as bar:
        bar.update()
    assert "explain: " in sys.stderr.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stderr", Terminal())
    console.manner.set(console.Manner(quiet=True))
    try:
        with console.Progress(2, "explain", "clip") as bar:
            bar.update()
    finally:
        console.manner.set(console.FOR_PEOPLE)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


# Completion


def completed(*words: str) -> list[str]:
    """What bash is told for the last of `words`."""
    typed = " ".join(("relax-quantus", *words))
    environment = {"_RELAX_QUANTUS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words))}
    return call(env=environment).stdout.split()


def test_shells_complete_commands_options_and_names() -> None:
    assert completed("") == list(cli.COMMANDS)
    assert completed("explain", "--h") == ["--head", "--hop", "--html", "--help"]
    assert completed("explain", "--masks", "t") == ["time", "time_frequency"]
    assert completed("explain", "--encoder", "hub") == ["hubert_base", "hubert_large", "hubert_xlarge"]
    assert completed("bench", "--preset", "") == list(PRESETS)
    assert completed("list", "m") == ["masks", "methods", "metrics"]


def test_completed_names_are_those_of_the_registries() -> None:
    registries = {
        "encoders": ENCODERS,
        "masks": STRATEGIES,
        "fills": FILLS,
        "similarities": SIMILARITIES,
        "estimators": ESTIMATORS,
    }
    assert {kind: tuple(registry.own_names()) for kind, registry in registries.items()} == {
        kind: NAMES[kind] for kind in registries
    }
    others = {
        "front_ends": front_ends.NAMES,
        "resamplers": RESAMPLERS,
        "domains": DOMAINS,
        "precisions": PRECISIONS,
        "presets": PRESETS,
        "kinds": HOMES,
    }
    assert {kind: tuple(names) for kind, names in others.items()} == {kind: NAMES[kind] for kind in others}
    assert set(registries) | set(others) == set(NAMES)
    assert {kind: registry.group for kind, registry in registries.items() if registry.group} == GROUPS


def test_names_of_other_distributions_are_completed_without_loading_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("tiles", "no_such_module:nothing", "relax_quantus.masks")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == point.group else [])
    assert completing("masks")("ti") == ["time", "time_frequency", "tiles"]


def test_completing_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom relax_quantus.cli.main import app\n"
        "try:\n    app()\nexcept SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'numpy', 'rich', 'tqdm'} & set(sys.modules)) or 0)"
    )
    environment = {
        "_RELAX_QUANTUS_COMPLETE": "complete_bash",
        "COMP_WORDS": "relax-quantus explain --encoder vgg",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert (done.returncode, done.stdout.split()) == (0, ["vggish_mini", "vggish"]), done.stderr


def test_a_full_disk_ends_a_benchmark_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("relax_quantus.benchmark.run", full, raising=False)
    result = call("bench", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: {tmp_path}: expected room for the results, got database or disk is full; make room"
    )

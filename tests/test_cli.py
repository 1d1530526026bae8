"""The command line: what it writes, and that whatever goes wrong is one plain line on stderr and an exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import relax_quantus
from relax_quantus import cli
from relax_quantus.benchmark.config import PRESETS
from relax_quantus.benchmark.output import FILES
from relax_quantus.commands import files
from relax_quantus.encoders import ENCODERS
from relax_quantus.modules import fingerprint

FEW = ("--n-samples", "6", "--masks", "time")
PROGRAM = (sys.executable, "-m", "relax_quantus")


def call(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


def refused(result: Result, *parts: str, code: int | None = None) -> str:
    """Check that the command was refused in exactly one plain line on stderr that contains all `parts`."""
    assert result.exit_code in ((1, 2) if code is None else (code,)), result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "unexpected" not in lines[0]
    for part in parts:
        assert part in lines[0]
    return lines[0]


@pytest.fixture(autouse=True)
def _quiet_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tone(write_wav: Callable[..., Path]) -> Callable[..., Path]:
    """Write a recording of a tone over noise."""

    def write(name: str = "tone.wav", hz: float = 1000.0, seconds: float = 1.0, **options: object) -> Path:
        time_s = np.arange(round(16_000 * seconds)) / 16_000
        noise = np.random.default_rng(int(hz)).standard_normal(time_s.size)
        wave = (0.3 * np.sin(2 * np.pi * hz * time_s) + 0.01 * noise).astype(np.float32)
        Path(write_wav(np.ones(1, np.float32), name="x.wav").parent, name).parent.mkdir(parents=True, exist_ok=True)
        return write_wav(wave, name=name, **options)

    return write


@pytest.fixture
def classes(tone: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with one folder a class, two recordings in each."""
    for label, hz in (("high", 4000.0), ("low", 300.0)):
        for i in range(2):
            tone(f"set/{label}/{i}.wav", hz + 50 * i)
    return tmp_path / "set"


class Odd(nn.Module):
    """An encoder that returns what a function makes of flattened examples."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        return self.make(x.flatten(1)[:, ::64])


@pytest.fixture
def odd_encoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], str]:
    """Register an encoder for one test."""

    def register(make: Callable[[Tensor], Tensor]) -> str:
        monkeypatch.setitem(ENCODERS._factories, "odd", (lambda: Odd(make), ""))
        return "odd"

    return register


# Help


@pytest.mark.parametrize("command", ["explain", "fit", "bench", "list"])
def test_help_shows_an_example_and_every_option_is_explained(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"relax-quantus {command} " in result.stdout.split("Examples:")[1]


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    heavy = "torch numpy quantus matplotlib sklearn pandas soundfile captum scipy"
    script = (
        "import sys\nfrom relax_quantus.cli import app\n"
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
    for kind, registry in (("masks", relax_quantus.masks.STRATEGIES), ("encoders", ENCODERS)):
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

    monkeypatch.setattr("relax_quantus.commands.listing.run", broken)
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
    assert len(result.stderr.splitlines()) == 1
    assert "0.20 s is less than one example" in result.stderr


# explain


def test_explain_writes_a_picture_and_arrays(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone(hz=4000.0, seconds=2.0)
    result = call("explain", clip, "--out", tmp_path / "out", "--n-samples", 40, "--seed", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{tmp_path / 'out' / 'tone.png'}\n"
    assert (tmp_path / "out" / "tone.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "out" / "tone.npz", allow_pickle=False) as arrays:
        settings = json.loads(str(arrays["settings"]))
        assert arrays["x"].shape == (2, 1, 96, 64)
        assert arrays["embedding"].shape == (2, 128)
        assert arrays["times_s"].shape == (2, 96)
        assert arrays["times_s"][1, 0] == pytest.approx(0.96 + 0.0125)
        assert arrays["frequencies_hz"].shape == (64,)
        assert arrays["frequencies_hz"][0] < arrays["frequencies_hz"][-1]
        for name in relax_quantus.masks.STRATEGIES:
            for kind in ("importance", "uncertainty", "standard_error"):
                assert arrays[f"{kind}_{name}"].shape == (2, 1, 96, 64)
            assert arrays[f"mean_similarity_{name}"].shape == (2,)
        encoder = relax_quantus.load_encoder("vggish_mini")
        expected = relax_quantus.RELAX(encoder, masks="frequency").attribute(
            torch.from_numpy(arrays["x"]), "silence", n_samples=40, seed=3
        )
        np.testing.assert_allclose(arrays["importance_frequency"], expected.numpy(), atol=1e-5)
    assert settings["clip"] == str(clip)
    assert (settings["n_samples"], settings["seed"], settings["baseline"]) == (40, 3, "silence")


def test_two_clips_of_one_name_and_a_second_run(tone: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    a, b, c = tone("a/same.wav", 500.0), tone("b/same.wav", 2000.0), tone("c/same.wav", 5000.0)
    first = call("explain", a, b, "--out", out, *FEW).stdout.splitlines()
    assert len(set(first)) == 2
    assert first[0] == str(out / "same.png")
    arrays = [np.load(Path(name).with_suffix(".npz"))["x"] for name in first]
    assert not np.array_equal(*arrays)
    again = call("explain", b, c, "--out", out, *FEW).stdout.splitlines()
    assert again[0] == first[1]
    assert again[1] not in first
    assert np.array_equal(np.load(Path(first[0]).with_suffix(".npz"))["x"], arrays[0])
    assert call("explain", a, "--out", out, *FEW).stdout.splitlines() == first[:1]
    assert len(list(out.iterdir())) == 6


def test_a_picture_of_someone_elses_is_not_replaced(tone: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "tone.png").write_bytes(b"mine")
    result = call("explain", tone(), "--out", tmp_path, *FEW)
    assert result.exit_code == 0
    assert result.stdout.strip() != str(tmp_path / "tone.png")
    assert (tmp_path / "tone.png").read_bytes() == b"mine"


def test_max_examples_cuts_with_a_warning(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone(seconds=5.0)
    result = call("explain", clip, "--out", tmp_path / "out", "--max-examples", 2, *FEW)
    assert result.exit_code == 0
    assert f"warning: {clip}: explained are the first 2 of 5 examples, 1.9 of 5.0 s" in result.stderr
    cut = np.load(tmp_path / "out" / "tone.npz")["x"]
    torch.testing.assert_close(torch.from_numpy(cut), relax_quantus.load_examples(clip)[:2])


def test_a_bad_clip_in_a_batch_is_reported_and_the_rest_done(tone: Callable[..., Path], tmp_path: Path) -> None:
    good, bad, other = tone("a.wav"), tmp_path / "b.wav", tone("c.wav")
    bad.write_text("not audio")
    result = call("explain", good, bad, other, "--out", tmp_path / "out", *FEW)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [str(tmp_path / "out" / f"{n}.png") for n in "ac"]
    assert len(result.stderr.splitlines()) == 1
    assert str(bad) in result.stderr


def test_a_folder_is_searched_and_each_recording_done_once(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone("in/deep/a.wav")
    tone("in/b.flac", subtype="PCM_16")
    (tmp_path / "in" / "notes.txt").write_text("no sound")
    shutil.copy(clip, tmp_path / "in" / ".hidden.wav")
    result = call("explain", tmp_path / "in", clip, "--out", tmp_path / "out", *FEW)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [str(tmp_path / "out" / f"{n}.png") for n in "ba"]


def silent(path: Path) -> None:
    soundfile.write(path, np.zeros(16_000), 16_000)


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 16_000)


def not_finite(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan, 0.2] * 6000), 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(range(256)) * 20),
        no_samples,
        silent,
        not_finite,
        lambda path: None,
        lambda path: path.mkdir(),
    ],
    ids=["empty", "not-audio", "no-samples", "silent", "not-finite", "missing", "folder-without-sound"],
)
def test_recordings_that_cannot_be_used_are_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    clip = tmp_path / "bad.wav"
    make(clip)
    refused(call("explain", clip, "--out", tmp_path / "out", *FEW), str(clip))


def test_odd_file_names_stay_on_one_line(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone("$a$ \\frac{ two\nlines \u00e9\u4e2d.wav")
    result = call("explain", clip, "--out", tmp_path / "out", *FEW)
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 1
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.wav"))
    bad.write_text("no")
    refused(call("explain", bad, "--out", tmp_path / "out", *FEW), "bad\\udcff.wav")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda h: h * torch.nan, "finite"),
        (lambda h: h[:, None], "shape"),
        (lambda h: h * 0, "non-zero"),
        (lambda h: h[:1].repeat(len(h) + 1, 1), "shape"),
    ],
    ids=["nan", "3-d", "zero", "rows"],
)
def test_bad_encoders_are_refused(
    make: Callable[[Tensor], Tensor],
    part: str,
    odd_encoder: Callable[..., str],
    tone: Callable[..., Path],
    tmp_path: Path,
) -> None:
    clip = tone(seconds=2.0)
    result = call("explain", clip, "--out", tmp_path / "out", "--encoder", odd_encoder(make), *FEW)
    refused(result, str(clip), "encoder", part)
    assert not list((tmp_path / "out").iterdir())


def test_an_example_without_embedding_is_left_blank(
    odd_encoder: Callable[..., str], write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    wave = np.concatenate([np.zeros(15_600), 0.3 * np.random.default_rng(0).standard_normal(16_400)])
    clip = write_wav(wave.astype(np.float32))
    name = odd_encoder(lambda h: (h + 4.6).relu())
    result = call("explain", clip, "--out", tmp_path / "out", "--encoder", name, *FEW)
    assert result.exit_code == 0
    assert "1 of 2 examples have an all-zero embedding" in result.stderr
    importance = np.load(tmp_path / "out" / "clip.npz")["importance_time"]
    assert np.isnan(importance[0]).all()
    assert np.isfinite(importance[1]).all()


def test_out_must_be_a_folder_that_can_be_written_to(tone: Callable[..., Path], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    refused(call("explain", tone(), "--out", taken, *FEW), "--out", str(taken))
    refused(call("explain", tone(), "--out", taken / "below", *FEW), "--out", "taken")
    refused(call("explain", tone(), "--out", "/proc/nowhere", *FEW), "--out", "/proc/nowhere")
    assert taken.read_text() == "a file"


def test_a_full_disk_stops_with_the_file_named_and_leaves_nothing_half(
    tone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    result = call("explain", tone(), "--out", tmp_path / "out", *FEW)
    refused(result, str(tmp_path / "out" / "tone.npz"), "No space left on device")
    assert not list((tmp_path / "out").iterdir())


def test_a_draft_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("older")

    def write() -> None:
        with files.complete(path) as draft:
            draft.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert path.read_text() == "older"


# fit and --head


def test_fit_then_explain_with_the_head(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = tmp_path / "made" / "head.safetensors"
    result = call("fit", classes, "--out", head)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "clips", "sources", "examples"]
    assert lines[1].split() == ["high", "2", "2", "2"]
    assert "2-fold cross-validation" in lines[3]
    assert lines[-1] == str(head)

    titles = []
    draw = relax_quantus.plotting.explanation_figure
    monkeypatch.setattr(
        "relax_quantus.commands.results.explanation_figure",
        lambda *a, **k: (titles.append(k["title"]), draw(*a, **k))[1],
    )
    explained = call("explain", classes / "low" / "0.wav", "--head", head, "--out", tmp_path / "out", *FEW)
    assert explained.exit_code == 0
    assert titles[0].startswith("0.wav: low, ")
    assert titles[0].endswith("%")
    arrays = np.load(tmp_path / "out" / "0.npz")
    assert json.loads(str(arrays["settings"]))["class_names"] == ["high", "low"]
    np.testing.assert_allclose(arrays["probabilities"].sum(1), 1, rtol=1e-5)


def test_fit_fine_tunes_and_explain_uses_that_encoder(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, out = tmp_path / "head", tmp_path / "out"
    monkeypatch.setattr("relax_quantus.fine_tuning._accuracy", lambda *_: next(accuracies))
    accuracies = iter([0.5, 0.75])
    result = call("fit", classes, "--out", head, "--fine-tune", "2", "--seed", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[3].startswith("fine-tuning: 2 epochs, the best was ")
    assert lines[4].startswith(
        "validation accuracy: frozen 50.0%, fine-tuned 75.0%, of 2 examples of 2 held-out sources"
    )
    assert lines[5] == "kept: the fine-tuned encoder"
    assert "not measured" in lines[6]

    call("explain", classes / "low" / "0.wav", "--head", head, "--out", out, *FEW)
    encoder = relax_quantus.load_encoder("vggish_mini")
    clf = relax_quantus.EmbeddingClassifier.load(head, encoder)
    arrays = np.load(out / "0.npz")
    x = torch.from_numpy(arrays["x"])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(arrays["embedding"]), clf.embed(x))
        torch.testing.assert_close(torch.from_numpy(arrays["probabilities"]), clf(x).softmax(1))
        assert not torch.allclose(clf.embed(x), encoder(x))
        wanted = relax_quantus.RELAX(clf.encoder, masks="time").explain(x, "silence", n_samples=6)
    torch.testing.assert_close(torch.from_numpy(arrays["importance_time"]), wanted.importance)
    assert json.loads(str(arrays["settings"]))["encoder_sha256"] == fingerprint(clf.encoder) != fingerprint(encoder)


def test_fit_keeps_the_encoder_that_is_no_worse(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("relax_quantus.encoder_training._validation_loss", interrupted)
    result = call("fit", classes, "--out", tmp_path / "head", "--fine-tune", "2")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: --fine-tune: interrupted after 0 of 2 epochs")
    assert len(result.stderr.splitlines()) == 1
    lines = result.stdout.splitlines()
    assert lines[3] == "fine-tuning: 0 epochs, interrupted, the best was none"
    assert "fine-tuned not measured" in lines[4]
    assert lines[5] == "kept: the encoder as it was"
    assert "2-fold cross-validation" in lines[6]
    assert (tmp_path / "head").is_file()
    refused(call("fit", classes, "--out", tmp_path / "head", "--fine-tune", "-1"), "--fine-tune")


def test_fit_reads_a_table_with_sources(classes: Path, tmp_path: Path) -> None:
    rows = ["file,label,source_group"]
    rows += [
        f"{p.relative_to(classes)},{'x' if p.parent.name == 'low' else 'y'},{p.parent.name}"
        for p in classes.rglob("*.wav")
    ]
    (classes / "clips.csv").write_text("\n".join(rows))
    result = call("fit", classes, "--out", tmp_path / "head")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == ["x", "2", "1", "2"]
    assert "one source only: x, y" in result.stdout


def test_fit_leaves_bad_recordings_out_and_says_so(classes: Path, tmp_path: Path) -> None:
    bad = classes / "low" / "bad.wav"
    bad.write_text("no")
    result = call("fit", classes, "--out", tmp_path / "head")
    refused(result, str(bad))
    assert (tmp_path / "head").is_file()
    assert result.stdout.splitlines()[2].split() == ["low", "2", "2", "2"]


def test_fit_refuses_folders_that_cannot_work(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "head"
    refused(call("fit", tmp_path / "none", "--out", out), str(tmp_path / "none"))
    refused(call("fit", classes / "low" / "0.wav", "--out", out), "0.wav")
    refused(call("fit", classes / "low", "--out", out), str(classes / "low"))
    refused(call("fit", classes, "--out", classes), "--out", str(classes))
    shutil.rmtree(classes / "high")
    refused(call("fit", classes, "--out", out), str(classes), "two classes", "'low'")
    (classes / "high").mkdir()
    (classes / "high" / "0.wav").write_text("no")
    result = call("fit", classes, "--out", out)
    assert result.exit_code == 1
    assert "at least two classes" in result.stderr.splitlines()[-1]
    assert not out.exists()


def test_many_alike_warnings_become_one(classes: Path, tmp_path: Path) -> None:
    for path in classes.rglob("*.wav"):
        soundfile.write(path, 0.3 * np.random.default_rng(len(str(path))).standard_normal(8000), 8000)
    result = call("fit", classes, "--out", tmp_path / "head")
    assert result.exit_code == 0
    warned = [line for line in result.stderr.splitlines() if "sampled at 8000 Hz" in line]
    assert len(warned) == 1
    assert "3 more like it" in warned[0]


def test_a_head_of_another_encoder_or_damaged_is_refused(
    classes: Path, odd_encoder: Callable[..., str], tmp_path: Path
) -> None:
    clip, head = classes / "low" / "0.wav", tmp_path / "head"
    call("fit", classes, "--out", head)
    ENCODERS._factories[odd_encoder(lambda h: h)] = (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6144, 128)), "")
    refused(
        call("explain", clip, "--head", head, "--encoder", "odd", "--out", tmp_path / "out", *FEW), str(head), "encoder"
    )
    head.write_bytes(head.read_bytes()[:-20])
    refused(call("explain", clip, "--head", head, "--out", tmp_path / "out", *FEW), str(head))


# bench


@pytest.fixture
def small_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make preset quick a matter of seconds."""
    small = {"methods": ("RELAX-time", "energy"), "metrics": ("Sparseness",), "head_clips": 12, "max_clips": 4}
    monkeypatch.setitem(PRESETS, "quick", small)
    monkeypatch.setattr("relax_quantus.benchmark.datasets.HELD_OUT_CLIPS", 6)


@pytest.mark.usefixtures("small_bench")
def test_bench_prints_the_table_and_writes_the_files(tmp_path: Path) -> None:
    result = call("bench", "--n-samples", 8, "--seed", 1, "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "RELAX-time" in result.stdout
    assert "N = 8 masks" in result.stdout
    written = [tmp_path / "out" / name for name in FILES]
    assert result.stdout.splitlines()[-len(FILES) :] == [str(path) for path in written]
    assert all(path.is_file() for path in written)


@pytest.mark.usefixtures("small_bench")
def test_bench_on_recordings_reports_the_bad_one(classes: Path, tone: Callable[..., Path], tmp_path: Path) -> None:
    for label, hz in (("high", 4100.0), ("low", 350.0)):
        tone(f"set/{label}/2.wav", hz)
        tone(f"set/{label}/3.wav", hz + 20)
    (classes / "low" / "bad.wav").write_text("no")
    result = call("bench", "--data", classes, "--max-clips", 4, "--n-samples", 8, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.wav" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "out" / "results.csv").is_file()


def test_bench_refuses_what_cannot_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(call("bench", "--preset", "quik", "--out", out), "did you mean 'quick'")
    refused(call("bench", "--n-samples", 0, "--out", out), "--n-samples", "at least 1")
    refused(call("bench", "--data", tmp_path / "none", "--out", out), str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    refused(call("bench", "--out", tmp_path / "file"), "--out", str(tmp_path / "file"))


def test_a_name_that_the_terminal_cannot_show_does_not_end_a_batch(tone: Callable[..., Path], tmp_path: Path) -> None:
    clips = [tone(f"{name}.wav") for name in ("鳥", "b")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = run("explain", *clips, "--out", tmp_path / "out", *FEW, env=environment)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["b.png", "鳥.png"]

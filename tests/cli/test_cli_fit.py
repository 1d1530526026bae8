"""`fit`, with and without fine-tuning, and `explain` with the head that it made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import FEW, call, refused
from torch import nn

import relax_quantus.views.maps
from relax_quantus.base.networks import fingerprint
from relax_quantus.encoders import ENCODERS

pytestmark = pytest.mark.usefixtures("one_thread")


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
    draw = relax_quantus.views.maps.explanation_figure
    monkeypatch.setattr(
        "relax_quantus.recordings.writing.explanation_figure",
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
    monkeypatch.setattr("relax_quantus.heads.fine_tuning._accuracy", lambda *_: next(accuracies))
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

    monkeypatch.setattr("relax_quantus.heads.training._validation_loss", interrupted)
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

"""`explain` towards and away from other recordings, with other
similarities and blending: what it writes and what it refuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import relax_quantus as rq
from relax_quantus.cli import main as cli

MASKS = ("--n-samples", "12", "--masks", "frequency")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def _quiet_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tone(write_wav: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Write a second of a tone over faint noise."""

    def write(name: str, *hz: float) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        time_s = np.arange(16_000) / 16_000
        wave = 0.01 * np.random.default_rng(len(name)).standard_normal(time_s.size)
        wave += sum(0.2 * np.sin(2 * np.pi * f * time_s) for f in hz)
        return write_wav(wave.astype(np.float32), name=name)

    return write


def explained(result: Result, out: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and settings of one result."""
    assert result.exit_code == 0, result.output
    with np.load(out / f"{name}.npz", allow_pickle=False) as arrays:
        loaded = dict(arrays)
    return loaded, json.loads(str(loaded["settings"]))


def test_towards_and_away_are_what_relax_gives(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip, towards, away = tone("clip.wav", 500.0, 4000.0), tone("low.wav", 500.0), tone("high.wav", 4000.0)
    result = call("explain", clip, "--out", tmp_path / "o", *MASKS, "--reference", towards, "--away", away)
    arrays, settings = explained(result, tmp_path / "o", "clip")
    assert (settings["towards"], settings["away"]) == (str(towards.resolve()), str(away.resolve()))
    encoder = rq.load_encoder("vggish_mini")
    x, low, high = (rq.load_examples(path) for path in (clip, towards, away))
    with torch.no_grad():
        np.testing.assert_allclose(arrays["towards"], encoder(low)[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(arrays["away"], encoder(high)[0], rtol=1e-5, atol=1e-6)
    expected = rq.RELAX(encoder, "frequency").explain(x, "silence", n_samples=12, reference=(low, high))
    np.testing.assert_allclose(arrays["importance_frequency"], expected.importance, atol=1e-5)
    np.testing.assert_allclose(arrays["spearman_frequency"], expected.spearman(), atol=1e-4)


def test_a_folder_stands_for_the_centroid_of_its_recordings(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip, a, b = tone("clip.wav", 1000.0), tone("set/a.wav", 300.0), tone("set/b.wav", 5000.0)
    (tmp_path / "set" / "bad.wav").write_bytes(b"not audio")
    result = call("explain", clip, "--out", tmp_path / "o", *MASKS, "--reference", tmp_path / "set")
    arrays, _ = explained(result, tmp_path / "o", "clip")
    assert "bad.wav" in result.stderr
    assert "left out" in result.stderr
    encoder = rq.load_encoder("vggish_mini")
    with torch.no_grad():
        centroid = torch.stack([encoder(rq.load_examples(path))[0] for path in (a, b)]).mean(0)
    np.testing.assert_allclose(arrays["towards"], centroid, rtol=1e-5, atol=1e-6)


def test_a_page_shows_what_it_is_compared_with(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip, towards = tone("clip.wav", 500.0, 4000.0), tone("low.wav", 500.0)
    for number in range(6):
        tone(f"set/{number}.wav", 300.0 * (number + 1))
    arguments = ("--reference", towards, "--away", tmp_path / "set", "--html")
    result = call("explain", clip, "--out", tmp_path / "o", *MASKS, *arguments)
    assert result.exit_code == 0, result.output
    html = (tmp_path / "o" / "clip.html").read_text(encoding="utf-8")
    assert "What in clip.wav makes it like low.wav and unlike set (centroid of 6 recordings), to this encoder?" in html
    encoder = rq.load_encoder("vggish_mini")
    with torch.no_grad():
        h, low, *crowd = (
            encoder(rq.load_examples(p))[0] for p in (clip, towards, *sorted((tmp_path / "set").iterdir()))
        )
    near, far = (float(torch.cosine_similarity(h, e, dim=0)) for e in (low, torch.stack(crowd).mean(0)))
    cells = re.findall(r"<td>([^<]+)</td>", html)
    assert [float(c.replace("\N{MINUS SIGN}", "-")) for c in cells[:3]] == pytest.approx(
        [near, far, near - far], abs=0.006
    )
    ranks = torch.stack([torch.cosine_similarity(e, torch.stack(crowd).mean(0), dim=0) for e in crowd]).argsort(
        descending=True
    )
    beside = re.findall(r'<span id="beside-(\d)-\d">([^<]+)<', html)
    assert beside == [("1", "low.wav"), *(("2", f"{int(i)}.wav") for i in ranks[:3])]
    assert f"then {', '.join(f'{int(i)}.wav' for i in ranks[3:])}." in html
    own = float(torch.cosine_similarity(h, crowd[int(ranks[0])], dim=0))
    assert f"1.0 s; similarity to this recording {own:.2f}" in html


def test_amplitude_changes_the_map_and_is_recorded(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone("clip.wav", 1000.0)
    log, settings = explained(call("explain", clip, "--out", tmp_path / "l", *MASKS), tmp_path / "l", "clip")
    result = call("explain", clip, "--out", tmp_path / "a", *MASKS, "--domain", "amplitude")
    amplitude, other = explained(result, tmp_path / "a", "clip")
    assert (settings["domain"], other["domain"]) == ("log", "amplitude")
    key = "mean_similarity_frequency"
    assert float(amplitude[key][0]) > float(log[key][0]) + 0.01  # m = .5 is only -6 dB in amplitude


@pytest.mark.parametrize("name", ["dot", "negative_euclidean"])
def test_other_similarities(name: str, tone: Callable[..., Path], tmp_path: Path) -> None:
    result = call("explain", tone("clip.wav", 1000.0), "--out", tmp_path / "o", *MASKS, "--similarity", name)
    arrays, settings = explained(result, tmp_path / "o", "clip")
    assert settings["similarity"] == name
    assert np.isfinite(arrays["importance_frequency"]).all()
    if name == "negative_euclidean":
        assert (arrays["importance_frequency"] <= 0).all()


def test_centred_cosine_takes_the_mean_of_a_corpus(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip, *corpus = tone("clip.wav", 1000.0), tone("set/a.wav", 300.0), tone("set/b.wav", 5000.0)
    arguments = ("--similarity", "centred_cosine", "--corpus", tmp_path / "set")
    arrays, _ = explained(call("explain", clip, "--out", tmp_path / "o", *MASKS, *arguments), tmp_path / "o", "clip")
    encoder = rq.load_encoder("vggish_mini")
    with torch.no_grad():
        mean = torch.stack([encoder(rq.load_examples(path))[0] for path in corpus]).mean(0)
    similarity = rq.similarity.get("centred_cosine", mean=mean)
    expected = rq.RELAX(encoder, "frequency", similarity).attribute(rq.load_examples(clip), "silence", n_samples=12)
    np.testing.assert_allclose(arrays["importance_frequency"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--reference", "missing.wav"), ("missing.wav", "no such file")),
        (("--away", "missing.wav"), ("missing.wav", "no such file")),
        (("--similarity", "cosin"), ("did you mean 'cosine'",)),
        (("--similarity", "centred_cosine"), ("--corpus",)),
        (("--corpus", "."), ("--corpus", "centred_cosine")),
        (("--domain", "amplitud"), ("domain", "'log' or 'amplitude'")),
        (("--resampler", "sox"), ("--resampler", "did you mean 'soxr'")),
    ],
)
def test_what_cannot_be_compared_with_is_refused_in_one_line(
    arguments: tuple[str, ...], parts: tuple[str, ...], tone: Callable[..., Path], tmp_path: Path
) -> None:
    result = call("explain", tone("clip.wav", 1000.0), "--out", tmp_path / "o", *MASKS, *arguments)
    assert result.exit_code in (1, 2)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def test_the_surrogate_is_the_default_and_leaves_cell_effects(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone("clip.wav", 900.0)
    options = ["--masks", "time_frequency", "--n-samples", "40"]
    result = call("explain", clip, "--out", tmp_path / "a", *options, "--estimator", "weighted")
    arrays, settings = explained(result, tmp_path / "a", "clip")
    assert settings["estimator"] == {"time_frequency": "weighted"}
    assert "cell_effects_time_frequency" not in arrays
    result = call("explain", clip, "--out", tmp_path / "b", *options)
    arrays, settings = explained(result, tmp_path / "b", "clip")
    assert settings["estimator"] == {"time_frequency": "surrogate"}
    assert arrays["cell_effects_time_frequency"].shape == arrays["importance_time_frequency"].shape

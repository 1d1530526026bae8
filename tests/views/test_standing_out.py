"""Chance and nothing draw no boxes, through the
library up to table rows and through the command line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, run
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.benchmark.data.soundscapes import SAMPLES, placed
from relax_quantus.benchmark.data.synthetic_calls import CALLS, Band
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.boxes import regions, write_raven
from relax_quantus.views.thresholds import standing_out

MASKS = ("random", "time", "time_frequency")


class NoMainEffect(nn.Module):
    """The similarity depends on whether two halves are kept
    alike, with which no bin goes alone; the fill alone is far.
    """

    def forward(self, x: Tensor) -> Tensor:
        early, late = (x[..., half, :].mean((1, 2, 3)) > 0.5 for half in (slice(0, 48), slice(48, 96)))
        unlike, nothing = (early ^ late).to(x.dtype), (x.amax((1, 2, 3)) == 0).to(x.dtype)
        return torch.stack([1 - nothing, 0.8 * unlike, nothing], 1)


@pytest.mark.parametrize("masks", MASKS)
def test_a_network_without_main_effects_has_boxes_in_one_of_twenty_draws(masks: str, tmp_path: Path) -> None:
    """40 draws; binomial(40, .05) exceeds 7 once in a
    thousand. The highest fifth would be boxed in all of them.
    """
    boxed = 0
    for seed in range(40):
        e = rq.RELAX(NoMainEffect(), masks=masks).explain(
            torch.ones(1, 1, 96, 64), torch.zeros(1), n_samples=80, seed=seed, null=True
        )
        assert not bool(e.hears_nothing)  # so that only chance keeps boxes away
        table = write_raven(tmp_path / "a.txt", regions(e, least_bins=1)).read_text().splitlines()
        boxed += len(table) > 1
    assert boxed <= 7


def noise(colour: str, seed: int) -> np.ndarray:
    """White or pink noise of one example, RMS 0.1."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(SAMPLES))
    if colour == "pink":
        spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), 1))
    wave = np.fft.irfft(spectrum, SAMPLES)
    return np.asarray(0.1 * wave / np.sqrt(np.mean(wave**2)))


def synthetic_call(seed: int) -> np.ndarray:
    """A call in faint noise."""
    rng = np.random.default_rng(seed)
    band = Band(float(np.exp(rng.uniform(np.log(800), np.log(4000)))), 1.3)
    call_alone = CALLS[sorted(CALLS)[seed % 3]](band, round(16_000 * rng.uniform(0.3, 0.6)), rng)
    return 0.2 * placed(call_alone, int(rng.integers(0, SAMPLES - call_alone.size))) + 0.01 * noise("white", seed)


@pytest.fixture(scope="module")
def explained() -> Callable[[list[np.ndarray], str], list[Explanation]]:
    encoder = rq.load_encoder("vggish_mini")

    def explain(waves: list[np.ndarray], masks: str) -> list[Explanation]:
        x = torch.cat([rq.LogMel()(torch.from_numpy(wave.astype(np.float32))) for wave in waves])
        relax = rq.RELAX(encoder, masks=masks)
        return [relax.explain(one[None], "silence", n_samples=80, null=True) for one in x]

    return explain


@pytest.mark.parametrize("masks", MASKS)
def test_in_noise_the_network_hears_nothing_and_in_calls_it_does(
    explained: Callable[[list[np.ndarray], str], list[Explanation]], masks: str
) -> None:
    noises = explained([noise(colour, seed) for colour in ("white", "pink") for seed in range(10)], masks)
    assert all(bool(e.hears_nothing) for e in noises)
    assert not any(regions(e, least_bins=1) for e in noises)
    assert {standing_out(e).bounds.in_words for e in noises} == {"this network hears nothing here; nothing stands out"}
    beyond = sum(bool((e.z().abs() > e.null()[:, None, None, None]).any()) for e in noises)
    assert beyond >= 15  # it does react to masks: without the last rule there would be boxes
    calls = explained([synthetic_call(seed) for seed in range(6)], masks)
    assert not any(bool(e.hears_nothing) for e in calls)
    assert sum(bool(regions(e)) for e in calls) >= 5


def explain(path: Path, out: Path, *options: object) -> Any:
    done = call("explain", path, "--out", out, "--masks", "time", "--html", "--sounds", "--annotations", *options)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize("hop", [(), ("--hop", "0.48")])
def test_noise_through_the_command_line(write_wav: Callable[..., Path], tmp_path: Path, hop: tuple[str, ...]) -> None:
    path, out = write_wav(np.concatenate([noise("white", seed) for seed in range(3)])), tmp_path / "out"
    done = explain(path, out, "--n-samples", 60, "--json", *hop)
    said = json.loads(done.stdout.splitlines()[0])
    verdict = "this network hears nothing here; nothing stands out"
    assert said["verdict"] == said["maps"]["time"]["verdict"] == verdict
    assert said["maps"]["time"]["effect_threshold"] is None
    assert said["maps"]["time"]["regions"] == []
    assert all(said["maps"]["time"]["hears_nothing"])
    assert f"{path}: {verdict}" in done.stderr.splitlines()
    assert (out / "clip.time.selections.txt").read_text().count("\n") == 1
    assert (out / "clip.time.labels.txt").read_text() == ""
    kept, _ = rq.audio.read_audio(out / "clip.time.removed.flac")
    assert np.abs(kept).max() > 0.1
    assert verdict in (out / "clip.html").read_text("utf-8")


@pytest.mark.parametrize("hop", [(), ("--hop", "0.48")])
def test_a_call_between_noise_through_the_command_line(
    write_wav: Callable[..., Path], tmp_path: Path, hop: tuple[str, ...]
) -> None:
    wave = np.concatenate([noise("white", 0), synthetic_call(1), noise("white", 1)])
    path, out = write_wav(wave), tmp_path / "out"
    done = explain(path, out, "--n-samples", 60, "--json", *hop)
    found = json.loads(done.stdout.splitlines()[0])["maps"]["time"]
    assert found["regions"]
    assert all(math.isfinite(r["z"]) and r["z"] > found["z_threshold"] for r in found["regions"])
    assert all(r["score"] > found["effect_threshold"] for r in found["regions"])
    assert found["p_value"] <= 0.05
    assert found["standard_error"]["mean"] != found["centred_standard_error"]["mean"] > 0
    assert "hears nothing in " in found["verdict"]
    assert all(r["begin_s"] > 0.45 and r["end_s"] < 2.45 for r in found["regions"]), found["regions"]
    with np.load(out / "clip.npz", allow_pickle=False) as arrays:
        settings = json.loads(str(arrays["settings"]), parse_constant=pytest.fail)
        assert settings["standing_out"]["time"]["z_threshold"] == found["z_threshold"]
        assert arrays["null_maxima_time"].shape == (len(found["hears_nothing"]), 200)
        assert arrays["null_maxima_time"].dtype == np.float32
        assert arrays["null_statistic_time"].shape == (len(found["hears_nothing"]),)
        assert arrays["centred_standard_error_time"].shape == arrays["importance_time"].shape


def test_few_masks_are_warned_of_once_a_run(write_wav: Callable[..., Path], tmp_path: Path) -> None:
    clips = [write_wav(synthetic_call(seed), name=f"{seed}.wav") for seed in range(2)]
    asked = ("--n-samples", 20, "--masks", "time", "--masks", "random", "--baseline", "silence", "--baseline", "blur")
    done = run("explain", *clips, "--out", tmp_path / "out", *asked)
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "masks are few" in line]
    assert lines == [
        "warning: --n-samples: 20 masks are few, and errors estimated from them are rough; use 50 or more."
    ]


def test_a_surer_estimator_marks_nothing_where_the_test_finds_nothing() -> None:
    """The p value is `weighted`'s, z that of the estimator that drew the map; both have to hold."""
    x = torch.ones(1, 1, 12, 8)
    e = rq.RELAX(lambda x: x[..., :6, :].flatten(1).cumsum(1), masks="time").explain(x, n_samples=60, null=True)
    assert standing_out(e).bins.any()
    assert e.null_maxima is not None
    unsure = replace(e, null_statistic=e.null_maxima.median(dim=1).values)
    assert float(unsure.p_value) > 0.05
    found = standing_out(unsure)
    assert bool((np.abs(found.z) > found.bounds.z).any())
    assert not found.bins.any()
    assert not found.among.any()
    assert found.bounds.in_words == "nothing stands out"


def test_a_fill_nearer_to_another_reference_does_not_mean_that_nothing_is_heard() -> None:
    """Half of the bins are heard; compared with an embedding
    that the fill is as near to as can be, they still are.
    """

    def half(x: Tensor) -> Tensor:
        heard = x[..., :6, :].mean((1, 2, 3))
        return torch.stack([heard, torch.full_like(heard, 0.5)], 1)

    x, relax = torch.ones(1, 1, 12, 8), rq.RELAX(half, masks="time")
    towards = relax.explain(x, n_samples=120, null=True, reference=half(torch.zeros(1, 1, 12, 8)))
    assert float(towards.fully_masked_similarity) > float(towards.mean_similarity)
    assert not bool(towards.hears_nothing)
    assert not bool(towards.compared_with_itself)
    away = relax.explain(x, n_samples=120, null=True, reference=(half(x), half(torch.zeros(1, 1, 12, 8))))
    assert standing_out(away).bins.any()
    assert bool(relax.explain(x, n_samples=120).compared_with_itself)

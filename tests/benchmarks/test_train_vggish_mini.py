"""Training of the bundled encoder: the chain knows no class,
one seed gives one network, controls are what they say.
"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from benchmarks import train_vggish_mini
from benchmarks.vggish_mini_training import chain, evaluation, fitting
from benchmarks.vggish_mini_training.recordings import EXAMPLE, Excerpts, background_of, load_recordings
from relax_quantus.errors import DataError
from relax_quantus.frontend.log_mel import LogMel, LogMelConfig


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three classes of beeps over hiss, six clips each,
    two sources a class, of several rates and lengths.
    """
    root = tmp_path_factory.mktemp("beeps")
    rng = np.random.default_rng(0)
    rows = []
    for label, hertz in (("high", 3000), ("low", 400), ("middle", 1200)):
        for index in range(6):
            rate = (8_000, 16_000, 22_050)[index % 3]
            seconds = (0.3, 1.2, 2.5)[index // 2]
            t = np.arange(int(rate * seconds)) / rate
            beep = 0.3 * np.sin(2 * np.pi * hertz * t) * (np.sin(2 * np.pi * 2 * t) > 0)
            file = f"{label}_{index}.wav"
            soundfile.write(root / file, beep + 1e-3 * rng.standard_normal(t.size), rate)
            rows.append((file, label, f"{label}_{index % 2}", rate, 1, seconds, "PCM_16"))
    columns = ["file", "label", "source_group", "sample_rate", "channels", "seconds", "source_encoding"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "clips.csv", index=False)
    return root


def test_one_seed_gives_one_encoder_and_another_seed_another(folder, tmp_path):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        arguments = f"--data {folder} --seed {seed} --steps 3 --threads 1 --out {tmp_path / name}"
        train_vggish_mini.main(arguments.split())
        weights.append(load_file(tmp_path / name / "vggish_mini.safetensors"))
    first, again, other = weights
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])
    manifest = json.loads((tmp_path / "a" / "vggish_mini.json").read_text())
    assert manifest["data"]["clips"] == 18
    assert manifest["seed"] == 0


def test_training_leaves_the_global_generator_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fitting.fit_encoder(load_recordings(folder, False), fitting.Recipe(steps=1, batch=8), seed=0, progress=False)
    assert torch.equal(torch.rand(1), expected)


def test_the_chain_draws_the_same_whatever_is_recorded():
    after = []
    for wave in (torch.zeros(6, EXAMPLE), torch.randn(6, EXAMPLE, generator=generator(1)), torch.ones(6, EXAMPLE)):
        stream = generator()
        out = chain.record(wave, torch.randn(6, EXAMPLE, generator=generator(2)), stream)
        assert out.shape == (6, EXAMPLE)
        assert out.isfinite().all()
        assert out.abs().max() <= 1
        after.append(stream.get_state())
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[0], after[2])


def test_the_chain_leaves_its_input_alone_and_changes_level_and_band():
    wave = 0.1 * torch.randn(40, EXAMPLE, generator=generator(1))
    before = wave.clone()
    out = chain.record(wave, torch.randn(40, EXAMPLE, generator=generator(2)), generator())
    assert torch.equal(wave, before)
    level_db = 20 * out.abs().amax(1).log10()
    assert level_db.max() - level_db.min() > 15
    above_4khz = torch.fft.rfft(out)[:, EXAMPLE // 4 + 10 :].abs().amax(1)
    assert 4 < (above_4khz < 1e-3).sum() < 36


@pytest.mark.parametrize("reverberation", [0.0, 1.0])
def test_the_chain_takes_a_batch_in_which_nothing_or_all_of_it_reverberates(reverberation):
    config = chain.ChainConfig(reverberation=reverberation)
    for seed in range(8):  # of one waveform: most codings are absent from each batch
        out = chain.record(torch.ones(1, EXAMPLE), torch.ones(1, EXAMPLE), generator(seed), config)
        assert out.isfinite().all()


def test_labels_do_not_reach_backgrounds(folder):
    recordings = load_recordings(folder, False)
    excerpts = Excerpts(recordings, generator())
    relabelled = Excerpts(recordings, generator())
    relabelled.labels = relabelled.labels.flip(0)
    recipe, front_end = fitting.Recipe(batch=12), LogMel()
    x, target = fitting.draw_batch(excerpts, 3, recipe, front_end, generator(3))
    same, flipped = fitting.draw_batch(relabelled, 3, recipe, front_end, generator(3))
    assert torch.equal(x, same)
    assert not torch.equal(target, flipped)
    assert x.shape == (12, 1, 96, 64)
    assert x.isfinite().all()
    torch.testing.assert_close(target.sum(1), torch.ones(12))
    assert (target[-2:, 3] == 1).all()


def test_background_holds_the_quiet_part_only():
    t = torch.arange(32_000) / 16_000
    hiss = 1e-3 * torch.randn(32_000, generator=generator())
    wave = torch.where(t < 1.0, torch.sin(2 * torch.pi * 1000 * t), hiss)
    background = background_of(wave, generator(1))
    assert background.shape == (EXAMPLE,)
    spectrum = torch.fft.rfft(background).abs().square()
    around_call = spectrum[round(950 * 0.975) : round(1050 * 0.975)].sum()
    assert around_call / spectrum.sum() < 0.05
    assert background_of(torch.sin(2 * torch.pi * 1000 * t), generator(1)) is None


def test_excerpts_hold_the_call(folder):
    recordings = load_recordings(folder, False)
    waves, labels = Excerpts(recordings, generator()).calls(40, generator(1))
    assert waves.shape == (40, EXAMPLE)
    assert set(labels.tolist()) == {0, 1, 2}
    assert (waves.abs().amax(1) > 0.1).all()
    peak_hz = torch.fft.rfft(waves).abs().argmax(1) / (EXAMPLE / 16_000)
    expected = torch.tensor([3000.0, 400.0, 1200.0])[labels]
    assert ((peak_hz / expected).log().abs() < np.log(1.25)).all()


def test_quietest_frames_come_from_the_quiet_part():
    silence = LogMelConfig().silence
    x = torch.full((2, 1, 96, 64), 2.0)
    x[1, 0, 40:90] = silence + 0.5
    quiet = evaluation.quietest(x)
    assert quiet.shape == (1, 1, 96, 64)
    assert (quiet == silence + 0.5).all()
    assert evaluation.has_background(x)
    assert not evaluation.has_background(torch.full((1, 1, 96, 64), 2.0))


def test_band_limit_removes_what_lies_above():
    wave = torch.randn(16_000, generator=generator())
    spectrum = torch.fft.rfft(evaluation.band_limited(wave)).abs()
    assert spectrum[3_410:].max() < 1e-2
    assert spectrum[:3_390].mean() > 1


def test_folds_never_share_a_source(folder):
    recordings = load_recordings(folder, False)
    for train, test in train_vggish_mini.grouped_folds(recordings, ("high", "low"), 2):
        groups = recordings.table["source_group"]
        assert not set(groups[train]) & set(groups[test])
        assert set(recordings.table["label"][train]) == {"high", "low"}


def test_evaluation_of_a_fold_reports_every_way(folder):
    recordings = load_recordings(folder, False)
    encoder = fitting.fit_encoder(recordings, fitting.Recipe(steps=2, batch=8), seed=0, progress=False)
    train, test = train_vggish_mini.clip_folds(recordings, 2)[0]
    predictions = evaluation.evaluate_fold(encoder, recordings.select(train), recordings.select(test))
    figures = train_vggish_mini.tabulate(predictions.assign(protocol="p", fold=0))["p"]
    assert set(figures["all"]) == set(train_vggish_mini.WAYS)
    row = figures["all"]["clip"]
    assert row["clips"] == 9
    assert row["low"] <= row["accuracy"] <= row["high"]
    assert "Clip accuracy" in train_vggish_mini.markdown({"p": figures})


def test_summary_matches_wilsons_interval():
    table = pd.DataFrame({"label": ["a"] * 10, "way": ["a"] * 9 + ["b"]})
    row = evaluation.summary(table, ["way"]).loc["way"]
    # Wilson (1927) for 9 of 10 at 95 %, by hand
    assert row["low"] == pytest.approx(0.5958, abs=1e-4)
    assert row["high"] == pytest.approx(0.9821, abs=1e-4)


def test_missing_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"--data: expected a folder with clips.csv"):
        load_recordings(tmp_path)


def test_as_the_model_card_says_85_percent_of_examples_have_stripes_of_silence_and_the_others_smooth_cells() -> None:
    card = (Path(__file__).parents[2] / "docs" / "model_card.md").read_text(encoding="utf-8")
    share = int(re.search(r"in \*\*(\d+) %\*\* of the examples two stripes", card)[1]) / 100
    assert fitting.Recipe().cells == pytest.approx(1 - share)
    masked = fitting.mask(torch.ones(4000, 1, 96, 64), fitting.Recipe().cells, generator())[:, 0]
    silent = (masked - fitting.SILENCE).abs() < 1e-5
    over_time, over_frequency = silent.all(2).any(1), silent.all(1).any(1)
    assert (over_time | over_frequency).double().mean().item() == pytest.approx(share, abs=0.02)
    assert silent[over_time | over_frequency].double().mean().item() == pytest.approx(1 / 3, abs=0.03)

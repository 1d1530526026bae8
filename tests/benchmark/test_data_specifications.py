"""Data sets and encoders by specification; ESC-50's
layout; the shortcut; soundscapes at a level.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from scipy.stats import mannwhitneyu
from torch import nn

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import DATASETS, kind_of_folder, resolve, specified, synthetic
from relax_quantus.benchmark.data.shortcut import shortcut, with_shortcut
from relax_quantus.benchmark.engine.prepared import prepare
from relax_quantus.benchmark.methods.questions import NotApplicable
from relax_quantus.benchmark.methods.registry import resolve as method
from relax_quantus.encoders import load_encoder
from relax_quantus.encoders import loading as nets
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, UnknownNameError, WeightsError
from relax_quantus.frontend.log_mel import LogMelConfig

RATE = 16_000
ESC_HEADER = "filename,fold,target,category,esc10,src_file,take\n"


def sound(hz: float, seed: int, seconds: float = 1.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return 0.2 * np.sin(2 * np.pi * hz * t) * (np.sin(2 * np.pi * 4 * t) > 0) + 0.01 * rng.standard_normal(t.size)


@pytest.fixture(autouse=True)
def _few_soundscapes(monkeypatch):
    monkeypatch.setattr("relax_quantus.benchmark.data.datasets.HELD_OUT_CLIPS", 6)


@pytest.fixture
def zoo(tmp_path):
    for number, (name, hz) in enumerate((("cat", 2500), ("dog", 3500), ("frog", 5000))):
        (tmp_path / name).mkdir()
        for k in range(8):
            soundfile.write(tmp_path / name / f"{k}.wav", sound(hz + 30 * k, 10 * number + k), RATE)
    return tmp_path


@pytest.fixture
def esc(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    lines = []
    for fold in (1, 2, 3):
        for number, name in enumerate(("dog", "rain", "clock_tick")):
            for take in ("A", "B"):
                file = f"{fold}-{100 * fold + number}-{take}-{number}.wav"
                soundfile.write(tmp_path / "audio" / file, sound(700 * (number + 1), fold), RATE)
                lines.append(f"{file},{fold},{number},{name},{number < 2},{100 * fold + number},{take}\n")
    (tmp_path / "meta" / "esc50.csv").write_text(ESC_HEADER + "".join(lines))
    return tmp_path


def test_esc50_explains_one_fold_and_fits_the_head_on_the_others(esc):
    data = resolve(f"esc50:path={esc},fold=2", max_clips=6, seed=0, head_clips=60)
    assert data.class_names == ("clock_tick", "dog", "rain")
    assert len(data.clips) == 6
    assert all(clip.name.startswith("2-") for clip in data.clips)
    assert {clip.source_group for clip in data.clips} == {"200", "201", "202"}
    assert {name.split("-")[0] for name in data.training.clips} == {"1", "3"}
    assert {name.split("-")[0] for name in data.held_out.clips} == {"2"}
    assert data.name.endswith(",fold=2")
    ten = resolve(f"esc50:path={esc},esc10=true", max_clips=2, head_clips=20)
    assert ten.class_names == ("dog", "rain")
    assert kind_of_folder(esc) == "esc50"
    assert resolve(str(esc), max_clips=3, head_clips=20).name.endswith(",fold=1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected ESC-50's table"),
        ("filename,category\na.wav,dog\n", "a column 'fold'"),
        (ESC_HEADER, "expected clips, got none"),
        (ESC_HEADER + "a.wav,x,0,dog,True,1,A\n", "a whole number as the fold of a.wav"),
        (ESC_HEADER + "a.wav,1,0,dog,True,1,A\n", "fold 1 and others"),
    ],
)
def test_other_layouts_than_esc50s_are_refused(tmp_path, text, message):
    (tmp_path / "meta").mkdir()
    if text is not None:
        (tmp_path / "meta" / "esc50.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        resolve(f"esc50:path={tmp_path}")


def test_the_hum_is_in_one_class_of_the_training_and_in_every_clip_to_explain(zoo):
    data = shortcut(zoo, 6, 0, 24, label="dog", level_db=0)
    low = LogMelConfig().band_centres_hz < 900
    levels = data.training.x[:, 0][:, :, torch.from_numpy(low)].mean((1, 2)).numpy()
    dog = data.training.y == data.class_names.index("dog")
    assert levels[dog].min() > levels[~dog].max() + 1
    assert all(clip.label_name.endswith(" with hum") and clip.label == 1 for clip in data.clips)
    assert len(data.clips) == 6
    assert set(data.swapped.y.tolist()) == {1}
    assert all(name.startswith(("cat", "frog")) for name in data.swapped.clips)
    for clip in data.clips:
        assert clip.truth.any(0)[low].any()
        assert not clip.truth[:, LogMelConfig().band_centres_hz > 1300].any(), "eight harmonics of at most 125 Hz"
        assert clip.truth[:, low].mean() > 0.8
        assert not {clip.source_group} & set(data.training.clips)


def test_the_hum_stands_at_its_level_and_is_a_recordings_own(zoo):
    wave = sound(2000, 0).astype(np.float32)

    class Named:
        name = "a"

    changed, added = with_shortcut(Named, wave, "hum", -6.0, 0.0, 0, RATE)
    np.testing.assert_allclose(changed - wave, added, atol=1e-6)
    assert 10 * np.log10(np.mean(added**2) / np.mean(wave**2)) == pytest.approx(-6, abs=0.01)
    power, hz = np.abs(np.fft.rfft(added)) ** 2, np.fft.rfftfreq(added.size, 1 / RATE)
    assert power[(hz > 90) & (hz < 1010)].sum() / power.sum() > 0.99
    np.testing.assert_array_equal(with_shortcut(Named, wave, "hum", -6.0, 0.0, 0, RATE)[1], added)
    other = type("Named", (), {"name": "b"})
    assert not np.allclose(with_shortcut(other, wave, "hum", -6.0, 0.0, 0, RATE)[1], added, atol=0.01)


def test_a_low_pass_takes_what_lies_above_and_has_no_stem(zoo):
    data = shortcut(zoo, 3, 0, 24, kind="low_pass", cutoff_hz=1000)
    middles = LogMelConfig().band_centres_hz
    for clip in data.clips:
        assert clip.stem is None
        assert clip.truth.any()
        assert not clip.truth[:, middles < 900].any()
    prepared = prepare(BenchmarkConfig(n_samples=8), "random:seed=1", data, perturbations_per_eval=8)
    prepared = replace(prepared, followed=1.0)
    asked = prepared.ask("stem", data.clips[0])
    assert asked.views == ("logit",)
    with pytest.raises(NotApplicable, match="no answer in the embedding view"):
        method("RELAX-time").explain(asked, prepared.similarities)
    method("RELAX-time:view=logit").explain(asked, prepared.similarities)


def test_a_shortcut_counts_only_if_the_head_follows_it_and_then_the_map_finds_it(zoo):
    data = shortcut(zoo, 6, 0, 24, label="dog", level_db=0)
    prepared = prepare(BenchmarkConfig(n_samples=200), "vggish_mini", data, perturbations_per_eval=48)
    assert prepared.followed > 0.5, (
        "the bundled encoder hears the hum, and nothing else tells these classes apart so well"
    )
    found = []
    for clip in data.clips[:3]:
        asked = prepared.ask("stem", clip)
        assert (asked.target, asked.kind) == (1, "stem")
        values = method("RELAX-frequency:view=logit").explain(asked, prepared.similarities).centred
        inside, outside = values[clip.truth], values[~clip.truth]
        found.append(mannwhitneyu(inside, outside).statistic / inside.size / outside.size)
    assert np.mean(found) > 0.7, found
    deaf = replace(prepared, followed=0.2)
    with pytest.raises(NotApplicable, match="the head does not follow the shortcut: 20% of other classes' clips"):
        deaf.ask("stem", data.clips[0])


class Bands(nn.Module):
    """The mean of each band over time, above silence: an encoder that cannot miss a low-pass."""

    def forward(self, x):
        return (x + 4.605170).mean(dim=(1, 2))


def test_a_map_finds_a_low_pass_where_its_absence_of_sound_is_filled(zoo):
    data = shortcut(zoo, 6, 0, 24, kind="low_pass", label="dog", cutoff_hz=1000)
    prepared = prepare(BenchmarkConfig(n_samples=200), Bands(), data, perturbations_per_eval=48)
    assert prepared.followed > 0.5
    found = {
        "RELAX-frequency:view=logit,fill=mean": [],
        "RELAX-frequency twin:view=logit,fill=mean": [],
        "RELAX-frequency:view=logit": [],
    }
    for clip in data.clips:
        for name, values in found.items():
            centred = method(name).explain(prepared.ask("stem", clip), prepared.similarities).centred
            inside, outside = centred[clip.truth], centred[~clip.truth]
            values.append(mannwhitneyu(inside, outside).statistic / inside.size / outside.size)
    filled, twin, silent = (np.array(values) for values in found.values())
    assert filled.min() > 0.6
    assert filled.mean() > twin.mean() + 0.05
    assert (filled > silent + 0.03).all(), "silence put where there is silence already changes little"


def test_what_cannot_be_a_shortcut_is_refused(zoo):
    with pytest.raises(ArgumentError, match="kind: expected 'hum' or 'low_pass', got 'hem'; did you mean 'hum'"):
        shortcut(zoo, kind="hem")
    with pytest.raises(UnknownNameError, match=r"label: .*did you mean 'frog'"):
        shortcut(zoo, label="frogs")
    with pytest.raises(ArgumentError, match="cutoff_hz"):
        shortcut(zoo, kind="low_pass", cutoff_hz=-5)


def test_soundscapes_at_a_level_differ_in_the_noise_alone():
    loud, quiet = (synthetic(4, 3, 12, snr_db=db) for db in (20.0, -6.0))
    assert [c.name for c in loud.clips] == [c.name for c in quiet.clips]
    assert (loud.name, quiet.name) == ("synthetic:snr_db=20", "synthetic:snr_db=-6")
    assert not quiet.needs_good_head
    for one, two in zip(loud.clips, quiet.clips, strict=True):
        assert one.truth.sum() > two.truth.sum() > 0
    drawn = synthetic(4, 3, 12)
    assert drawn.name == "synthetic"
    assert drawn.needs_good_head
    from relax_quantus.benchmark.data.soundscapes import soundscape

    for db in (-6.0, 12.0):
        one, two = soundscape(3, 1, 0, db), soundscape(3, 1, 0, db + 6)
        assert one.nuisance.snr_db == db
        assert replace(one.nuisance, snr_db=0.0) == replace(two.nuisance, snr_db=0.0)


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("synthetc", UnknownNameError, "did you mean 'synthetic'"),
        (
            "synthetic:snr=3",
            ArgumentTypeError,
            "snr: expected a setting of the data set 'synthetic'; did you mean 'snr_db'",
        ),
        ("planted", ArgumentError, "path: expected a folder for the data set 'planted'"),
        ("planted:path=x,snrdb=3", ArgumentTypeError, "did you mean 'snr_db'"),
        ("recordings:path=/nowhere/at/all", DataError, "no such folder"),
        ("/nowhere/at/all", DataError, "no such folder"),
        ("synthetic:snr_db=loud", ArgumentTypeError, "snr_db: expected a number"),
        ("synthetic:snr_db", UnknownNameError, "data: expected the name of a data set"),
    ],
)
def test_specifications_of_no_data_set_say_the_nearest(spec, error, text):
    with pytest.raises(error, match=text):
        resolve(spec)


def test_a_specification_has_its_way_and_a_folder_is_read_as_it_is_laid_out(zoo):
    data = resolve("synthetic:max_clips=3,head_clips=12,seed=4", max_clips=9, seed=0)
    assert len(data.clips) == 3
    assert "_4_" in data.clips[0].name
    assert kind_of_folder(zoo) == "recordings"
    assert specified(str(zoo)) == ("recordings", {"path": str(zoo)})
    assert len(resolve(str(zoo), max_clips=3, head_clips=12).clips) == 3
    (zoo / "cat" / "notes.txt").write_text("heard on Monday")
    assert kind_of_folder(zoo) == "recordings", "a text file that is no label track"
    assert specified(f"planted:path={zoo},snr_db=-6")[1] == {"path": str(zoo), "snr_db": -6}
    assert specified("recordings:path=007")[1] == {"path": "007"}, "a folder's name may look like a number"


def test_data_sets_of_others_join_by_name(zoo):
    DATASETS.register("mine", lambda max_clips=1, colour="red": (max_clips, colour), "test")
    try:
        assert resolve("mine:colour=blue", max_clips=7) == (7, "blue")
        with pytest.raises(ArgumentTypeError, match="did you mean 'colour'"):
            resolve("mine:color=blue")
    finally:
        DATASETS._factories.pop("mine")


def test_encoders_by_specification(tmp_path):
    plain, sha = nets.resolve("vggish_mini")
    x = torch.rand(2, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(x), load_encoder("vggish_mini")(x))
    assert nets.resolve("vggish_mini")[1] == sha
    weights = {key: value.contiguous() + 0.001 for key, value in plain.state_dict().items()}
    save_file(weights, str(tmp_path / "mine.safetensors"))
    mine, other = nets.resolve(f"vggish_mini:weights={tmp_path / 'mine.safetensors'}")
    assert other != sha
    assert not torch.allclose(mine(x), plain(x))
    assert not mine.training
    assert torch.equal(load_encoder("vggish_mini")(x), plain(x)), "the bundled weights are as they were"
    with pytest.raises(WeightsError, match="SHA-256"):
        nets.resolve(f"vggish_mini:weights={tmp_path / 'mine.safetensors'},sha256={'0' * 64}")


def test_random_weights_are_drawn_from_their_seed_and_respond_to_the_input():
    state = torch.get_rng_state()
    (one, sha), (same, same_sha), (_, other_sha) = (
        nets.resolve(f"random:of=vggish_mini,seed={seed}") for seed in (1, 1, 2)
    )
    assert sha == same_sha != other_sha
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(4, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    h = nn.functional.normalize(one(x), dim=1)
    torch.testing.assert_close(one(x), same(x))
    assert ((h @ h.T)[0, 1:] < 0.995).all(), "different inputs, different embeddings"


def test_encoders_of_the_users_and_what_is_none(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n"
        "def good():\n    return nn.Sequential(nn.Flatten(), nn.Linear(6144, 4))\n"
        "def flat():\n    return nn.Flatten(0)\n"
        "def wrong():\n    return nn.Linear(5, 4)\n"
        "def number():\n    return 3\n"
    )
    encoder, sha = nets.resolve(f"{file}:good")
    assert encoder(torch.zeros(2, 1, 96, 64)).shape == (2, 4)
    assert len(sha) == 64
    for spec, error, text in (
        (f"{file}:flat", ArgumentError, "an encoder"),
        (f"{file}:wrong", ArgumentError, "which says"),
        (f"{file}:number", ArgumentTypeError, "a torch.nn.Module"),
        (f"{file}:god", UnknownNameError, "did you mean 'good'"),
        ("vggish_mni", UnknownNameError, "did you mean 'vggish_mini'"),
        ("random:of=vggish_mni", UnknownNameError, "did you mean 'vggish_mini'"),
        ("random:off=vggish_mini", ArgumentTypeError, "did you mean 'of'"),
        ("random:of=random", ArgumentError, "of: expected the name of an encoder"),
        ("random:seed=-1", ArgumentError, "seed"),
        ("vggish_mini:weights=/nowhere.safetensors", WeightsError, "no such file"),
    ):
        with pytest.raises(error, match=text):
            nets.resolve(spec)

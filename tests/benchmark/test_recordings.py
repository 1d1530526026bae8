"""Folders of recordings, good and bad."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from relax_quantus.benchmark.data.recordings import folder, listing, loudest
from relax_quantus.errors import ArgumentError, DataError


def tone(seconds: float, hz: float, rate: int = 16_000, gain: float = 0.3) -> np.ndarray:
    return gain * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def save(path, wave, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)


@pytest.fixture
def zoo(tmp_path):
    for name, hz in (("cat", 500), ("dog", 900)):
        for k in range(6):
            save(tmp_path / name / f"{name}_{k}.wav", tone(1.2, hz + 20 * k))
    return tmp_path


def test_a_folder_a_class(zoo):
    data = folder(zoo, max_clips=4, seed=0)
    assert data.class_names == ("cat", "dog")
    assert [clip.label for clip in data.clips] == [0, 1, 0, 1]
    assert all(clip.x.shape == (1, 96, 64) and clip.truth is None and clip.stem is None for clip in data.clips)
    explained = {clip.name for clip in data.clips}
    assert not explained & set(data.training.clips)
    assert explained <= set(data.held_out.clips)
    assert sorted(set(data.training.y.tolist())) == [0, 1]
    assert [c.name for c in folder(zoo, 4, 0).clips] == [c.name for c in data.clips]
    assert {c.name for c in folder(zoo, 4, 1).clips} != explained


def test_a_table_keeps_sources_apart(zoo):
    lines = ["file,label,source_group"]
    lines += [f"{n}/{n}_{k}.wav,{n},{n}_{k // 2}" for n in ("cat", "dog") for k in range(6)]
    (zoo / "clips.csv").write_text("\n".join(lines))
    data = folder(zoo, max_clips=4, seed=3)
    assert not data.notes
    assert len({clip.source_group for clip in data.clips}) == 4, "one clip a source before a second one"
    assert not {clip.source_group for clip in data.clips} & set(data.training.groups)


def test_a_source_of_two_classes_is_held_out_of_both(zoo):
    lines = ["file,label,source_group"] + [f"{n}/{n}_{k}.wav,{n},morning_{k}" for n in ("cat", "dog") for k in range(6)]
    (zoo / "clips.csv").write_text("\n".join(lines))
    for seed in range(5):
        data = folder(zoo, max_clips=6, seed=seed)
        explained = {clip.source_group for clip in data.clips}
        assert {clip.label_name for clip in data.clips} == {"cat", "dog"}
        assert not explained & set(data.training.groups), "heard as another class"
        assert not {f"morning_{name[-5]}" for name in data.held_out.clips} & set(data.training.groups)
        assert not data.notes


def test_a_source_that_is_all_there_is_of_two_classes_is_said(zoo):
    lines = ["file,label,source_group"] + [f"{n}/{n}_{k}.wav,{n},morning" for n in ("cat", "dog") for k in range(6)]
    (zoo / "clips.csv").write_text("\n".join(lines))
    data = folder(zoo, max_clips=4)
    assert data.notes[0].endswith("for: cat, dog")
    assert not {clip.name for clip in data.clips} & set(data.training.clips)


def test_clips_of_one_source_can_be_limited(zoo):
    lines = ["file,label,source_group"]
    lines += [f"{n}/{n}_{k}.wav,{n},{n if n == 'cat' else k // 3}" for n in ("cat", "dog") for k in range(6)]
    (zoo / "clips.csv").write_text("\n".join(lines))
    one = [clip.source_group for clip in folder(zoo, max_clips=6, clips_per_source=1).clips]
    assert sorted(one) == ["0", "1", "cat"]
    two = [clip.source_group for clip in folder(zoo, max_clips=12, clips_per_source=2).clips]
    assert max(map(two.count, two)) == 2
    lines = ["file,label,source_group"] + [f"{n}/{n}_{k}.wav,{n},{k // 2}" for n in ("cat", "dog") for k in range(6)]
    (zoo / "clips.csv").write_text("\n".join(lines))
    both = [clip.source_group for clip in folder(zoo, max_clips=4, clips_per_source=1).clips]
    assert len(set(both)) == len(both), "a source that two classes share counts once"
    with pytest.raises(ArgumentError, match="clips_per_source: expected"):
        folder(zoo, clips_per_source=0)


def test_shared_sources_are_said(zoo):
    lines = ["file,label,source_group"]
    lines += [f"{n}/{n}_{k}.wav,{n},{n if n == 'cat' else k}" for n in ("cat", "dog") for k in range(6)]
    (zoo / "clips.csv").write_text("\n".join(lines))
    data = folder(zoo, max_clips=4)
    assert len(data.notes) == 1
    assert data.notes[0].endswith("for: cat")
    assert not {clip.name for clip in data.clips} & set(data.training.clips)


def test_bad_files_are_listed_and_skipped(zoo):
    for k in range(6):
        (zoo / "cat" / f"cat_{k}a.wav").write_bytes(b"not audio at all")
    save(zoo / "dog" / "dog_silent.wav", np.zeros(16_000))
    with pytest.warns(UserWarning, match="skipped cat/cat_"):
        data = folder(zoo, max_clips=6)
    assert len(data.clips) == 6
    assert sum(line.startswith("cat/cat_") for line in data.skipped) == 6
    assert any("silence" in line for line in data.skipped)
    assert len(set(data.skipped)) == len(data.skipped)


def test_the_loudest_example_is_explained(tmp_path):
    for name in ("cat", "dog"):
        for k in range(2):
            save(tmp_path / name / f"{k}.wav", np.concatenate([tone(1.0, 700, gain=0.01), tone(1.0, 700, gain=0.5)]))
    for clip in folder(tmp_path, 2).clips:
        assert clip.x.max() > 3
    import torch

    x = torch.stack([torch.zeros(1, 96, 64), torch.ones(1, 96, 64)])
    assert loudest(x).min() == 1


def test_what_cannot_be_benchmarked_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        listing(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"expected recordings.*got none"):
        listing(tmp_path)
    save(tmp_path / "cat" / "a.wav", tone(1, 400))
    with pytest.raises(DataError, match="got only 'cat'"):
        listing(tmp_path)
    save(tmp_path / "dog" / "a.wav", tone(1, 400))
    with pytest.raises(DataError, match="at least two usable recordings of every class, got too few of cat, dog"):
        folder(tmp_path)
    (tmp_path / "clips.csv").write_text("name,label\na,b\n")
    with pytest.raises(DataError, match="a column 'file'"):
        listing(tmp_path)


def test_fewer_clips_than_classes(zoo):
    assert len(folder(zoo, max_clips=1).clips) == 1


def test_a_file_listed_twice_is_refused(zoo):
    table = zoo / "clips.csv"
    first = next(path for path in sorted(zoo.rglob("*")) if path.suffix == ".wav").relative_to(zoo).as_posix()
    table.write_text(f"file,label\n{first},a\n{first},b\n")
    with pytest.raises(DataError, match=r"expected each file once, got .* twice"):
        listing(zoo)


def test_odd_recordings_are_noted_once_not_warned_about_one_by_one(tmp_path, recwarn):
    for name in ("cat", "dog"):
        for k in range(3):
            save(tmp_path / name / f"{k}.wav", tone(1.2, 500, rate=8_000), rate=8_000)
    data = folder(tmp_path, max_clips=2)
    assert not [w for w in recwarn if "8000 Hz" in str(w.message)]
    assert "6 recordings are used although something is odd, e.g. cat/" in data.notes[0]

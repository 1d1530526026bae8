"""Truth by construction: what is outside the region cannot
matter, and maps of the wrapped encoder find the region.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Clip, synthetic
from relax_quantus.benchmark.data.region import SeesOnly, draw, with_region
from relax_quantus.benchmark.engine.prepared import Prepared, prepare
from relax_quantus.benchmark.methods.questions import NotApplicable
from relax_quantus.benchmark.methods.registry import resolve
from relax_quantus.encoders import load_encoder
from relax_quantus.errors import UnknownNameError
from relax_quantus.relax.fills import SILENCE

CONFIG = BenchmarkConfig(max_clips=3, n_samples=60, head_clips=30, seed=5)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relax_quantus.benchmark.data.datasets.HELD_OUT_CLIPS", 6)
        return prepare(CONFIG, "vggish_mini", synthetic(3, 5, 30), perturbations_per_eval=48)


def box_of(region: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_a_region_is_a_box_of_stated_extent_where_there_is_energy(prepared):
    x = prepared.dataset.clips[0].x
    levels = []
    for k in range(60):
        region = draw(x, f"clip {k}", 0)
        rows, columns = box_of(region)
        assert region[rows, columns].all()
        assert region.sum() == (rows.stop - rows.start) * (columns.stop - columns.start)
        assert 20 <= rows.stop - rows.start <= 48
        assert 12 <= columns.stop - columns.start <= 32
        levels.append(float(x[0][torch.from_numpy(region)].mean() - x.mean()))
    assert np.mean(np.array(levels) > 0) > 0.8
    np.testing.assert_array_equal(draw(x, "clip 0", 0), draw(x, "clip 0", 0))
    assert not np.array_equal(draw(x, "clip 0", 0), draw(x, "clip 0", 1))


def test_a_clip_that_is_silent_but_for_one_place_has_its_region_there():
    x = torch.full((1, 96, 64), SILENCE)
    x[:, 40:50, 20:30] = 2.0
    for k in range(20):
        assert draw(x, str(k), 0)[40:50, 20:30].any()


def test_the_wrapped_encoder_sees_the_region_alone(prepared):
    clip = prepared.dataset.clips[0]
    encoder = SeesOnly(prepared.encoder, clip.region, clip.x)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 96, 64, generator=generator)
    inside = torch.from_numpy(clip.region)
    whole, outside = clip.x[None], torch.where(inside, clip.x[None], noise)
    torch.testing.assert_close(encoder(whole), prepared.encoder(whole))
    assert torch.equal(encoder(outside), encoder(whole))
    assert not torch.allclose(encoder(torch.where(inside, noise, clip.x[None])), encoder(whole), atol=1e-3)
    x = whole.clone().requires_grad_()
    encoder(x).square().sum().backward()
    assert not x.grad[0, 0][~inside].any()
    assert x.grad[0, 0][inside].any()


def test_its_weights_and_region_are_told_apart_from_another_region(prepared):
    from relax_quantus.benchmark.methods.questions import fingerprint

    clip, other = prepared.dataset.clips[:2]
    one, two = (SeesOnly(prepared.encoder, region, clip.x) for region in (clip.region, other.region))
    assert fingerprint(one) != fingerprint(two)


@pytest.mark.parametrize("name", ["RELAX-random", "RELAX-random:view=logit", "Occlusion", "KernelShap", "Saliency"])
def test_maps_of_the_region_question_point_into_the_region(prepared, name):
    from scipy.stats import mannwhitneyu

    found, method = [], resolve(name)
    for clip in prepared.dataset.clips:
        asked = prepared.ask("region", clip, 100)
        assert asked.kind == "region"
        values = method.explain(asked, prepared.similarities).centred
        inside, outside = values[clip.region], values[~clip.region]
        found.append(mannwhitneyu(inside, outside).statistic / inside.size / outside.size)
        if name == "Saliency":
            assert not outside.any()
    assert np.mean(found) > 0.62, found


def test_the_truth_of_the_question_is_the_region_and_the_head_is_the_same(prepared):
    clip = prepared.dataset.clips[0]
    own, asked = prepared.ask("own", clip), prepared.ask("region", clip, 7)
    assert asked.truth is clip.region
    assert (own.kind, asked.n_samples) == ("own", 7)
    torch.testing.assert_close(asked.model(clip.x[None]), own.model(clip.x[None]))
    change = (asked.model(asked.x) - asked.model(asked.baseline))[0]
    assert asked.target == int(change.argmax())


def test_a_region_that_the_encoder_does_not_respond_to_does_not_count(prepared):
    clip = prepared.dataset.clips[0]
    corner = np.zeros((96, 64), dtype=bool)
    corner[0, 0] = True
    with pytest.raises(NotApplicable, match="does not respond to the region"):
        prepared.ask("region", replace(clip, region=corner))
    with pytest.raises(NotApplicable, match="no region was drawn"):
        prepared.ask("region", replace(clip, region=None))
    with pytest.raises(UnknownNameError, match="did you mean 'region'"):
        prepared.ask("regions", clip)


def test_a_region_that_a_data_set_brings_is_kept():
    clip = Clip("a", torch.zeros(1, 96, 64), 0, "cat", "a", region=np.eye(96, 64, dtype=bool))
    assert with_region(clip, 0) is clip


def test_preparing_twice_gives_the_same_bench_and_the_seed_of_masks_leaves_the_data_alone(prepared):
    data = replace(prepared.dataset, clips=tuple(replace(clip, region=None) for clip in prepared.dataset.clips))
    again = prepare(CONFIG, "vggish_mini", data, seed=9, perturbations_per_eval=48)
    for one, two in zip(prepared.dataset.clips, again.dataset.clips, strict=True):
        np.testing.assert_array_equal(one.region, two.region)
    assert (again.seed, prepared.seed) == (9, 5)
    assert again.encoder_sha256 == prepared.encoder_sha256
    torch.testing.assert_close(again.classifier.head.weight, prepared.classifier.head.weight, rtol=0, atol=0)
    method = resolve("RELAX-time")
    clip = prepared.dataset.clips[0]
    maps = [
        method.explain(b.ask("own", clip, 40), type(b.similarities)()).importance for b in (prepared, again, prepared)
    ]
    assert not np.array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_the_micro_batch_is_recorded_or_measured(prepared):
    assert prepared.perturbations_per_eval == 48
    assert prepared.ask("own", prepared.dataset.clips[0]).perturbations_per_eval == 48
    measured = prepare(CONFIG, load_encoder("vggish_mini"), prepared.dataset)
    assert measured.perturbations_per_eval >= 1

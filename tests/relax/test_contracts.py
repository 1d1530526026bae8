"""The same tests for every entry of every registry:
an entry that is added is covered without a line here.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from reference.models import rand, relu_encoder
from torch import Tensor

import relax_quantus as rq
from relax_quantus.base.registry import Registry
from relax_quantus.errors import ArgumentTypeError, UnknownNameError
from relax_quantus.relax.estimators import ESTIMATORS
from relax_quantus.relax.fills import FILLS, Fill
from relax_quantus.relax.masks import STRATEGIES
from relax_quantus.relax.similarity import SIMILARITIES, Similarity, is_directional

REGISTRIES = {"masks": STRATEGIES, "fills": FILLS, "estimators": ESTIMATORS, "similarities": SIMILARITIES}
ENTRIES = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]
EXAMPLE = (1, 12, 8)


def similarity(name: str) -> Similarity:
    """Build a similarity; those that need a corpus mean of 4 dimensions get one."""
    try:
        built: Similarity = SIMILARITIES.get(name)
    except ArgumentTypeError:
        built = SIMILARITIES.get(name, mean=torch.full((4,), 0.1, dtype=torch.float64))
    return built


# -- every registry --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_names_and_summaries(kind: str, name: str) -> None:
    registry = REGISTRIES[kind]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
    assert 10 <= len(registry.summary(name)) <= 100
    assert "\n" not in registry.summary(name)
    assert name in registry


@pytest.mark.parametrize(("kind", "name"), [e for e in ENTRIES if e[0] != "similarities"])
def test_a_name_is_the_snake_case_of_its_class(kind: str, name: str) -> None:
    built = REGISTRIES[kind].get(name)
    assert re.sub(r"(?<!^)(?=[A-Z])", "_", type(built).__name__).lower() == name
    assert REGISTRIES[kind].get(name) == built
    assert REGISTRIES[kind].resolve(built) is built


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_misspelt_names_find_the_entry(kind: str, name: str) -> None:
    registry: Registry[object] = REGISTRIES[kind]
    wrong = name[:-1] + "q"
    with pytest.raises(UnknownNameError, match=rf"^{registry.argument}: .*got '{wrong}'; did you mean .*'{name}'"):
        registry.get(wrong)
    with pytest.raises(ArgumentTypeError, match=r"^no_such_parameter: expected a parameter of the"):
        registry.get(name, no_such_parameter=1)


# -- strategies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [EXAMPLE, (7,), (1, 1), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_draw_masks(name: str, shape: tuple[int, ...]) -> None:
    state = torch.get_rng_state()
    strategy = STRATEGIES.get(name)
    generator = torch.Generator().manual_seed(1)
    masks = strategy.sample(8, shape, generator)
    assert masks.expand(8, *shape).shape == (8, *shape)
    assert masks.is_floating_point()
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    generator.manual_seed(1)
    parts = [strategy.sample(n, shape, generator) for n in (1, 2, 5)]
    assert torch.equal(torch.cat(parts), masks)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("keep", [0.2, 0.8])
@pytest.mark.parametrize("edges", ["smooth", "hard"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_keep_what_they_are_told(name: str, edges: str, keep: float) -> None:
    """Within 4.5 standard errors of 2000 masks, and binary where edges are hard."""
    masks = (
        STRATEGIES.get(name, keep_probability=keep, edges=edges)
        .sample(2000, EXAMPLE, torch.Generator().manual_seed(0))
        .double()
    )
    fractions = masks.flatten(1).mean(1)
    assert abs(float(fractions.mean()) - keep) < 4.5 * float(fractions.std()) / 2000**0.5
    if edges == "hard":
        assert set(masks.unique().tolist()) <= {0.0, 1.0}


# -- fills -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FILLS)
def test_fills_are_of_each_example_alone(name: str, dtype: torch.dtype) -> None:
    fill = FILLS.get(name)
    assert isinstance(fill, Fill)
    x = rand(3, *EXAMPLE, dtype=dtype)
    before = x.clone()
    level = fill.level(x).expand_as(x)
    assert level.dtype == dtype
    assert bool(torch.isfinite(level).all())
    assert torch.equal(x, before)
    for i in range(3):
        torch.testing.assert_close(
            fill.level(x[i : i + 1]).expand(1, *EXAMPLE),
            level[i : i + 1],
            rtol=0,
            atol=1e-5 if dtype == torch.float32 else 1e-12,
        )


@pytest.mark.parametrize("name", FILLS)
def test_fills_draw_a_stream(name: str) -> None:
    fill, x = FILLS.get(name), rand(3, *EXAMPLE)
    state = torch.get_rng_state()

    def draw(*sizes: int) -> Tensor | None:
        generator = torch.Generator().manual_seed(2)
        parts = [fill.draw(n, x, generator) for n in sizes]
        return None if parts[0] is None else torch.cat([p for p in parts if p is not None])

    whole = draw(8)
    if whole is not None:
        assert whole.shape == (8, *EXAMPLE)
        assert whole.dtype == x.dtype
        parts = draw(3, 5)
        assert parts is not None
        assert torch.equal(parts, whole)
    assert torch.equal(torch.get_rng_state(), state)


# -- estimators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_accumulate(name: str) -> None:
    estimator = ESTIMATORS.get(name)
    assert estimator.name == name
    generator = np.random.default_rng(0)
    s, masks = torch.from_numpy(generator.uniform(0, 1, (30, 2))), torch.from_numpy(generator.random((30, *EXAMPLE)))
    results = []
    for sizes in ([30], [1, 4, 25]):
        accumulator = estimator.start()
        for part_s, part_m in zip(s.split(sizes), masks.split(sizes), strict=True):
            accumulator.update(part_s, part_m)
        results.append(accumulator.finish())
    whole, chunked = results
    for field in ("importance", "uncertainty", "standard_error", "mean_similarity", "neutral"):
        torch.testing.assert_close(getattr(chunked, field), getattr(whole, field), rtol=0, atol=1e-11)
    assert whole.importance.shape == whole.uncertainty.shape == whole.standard_error.shape == (2, *EXAMPLE)
    assert bool((whole.uncertainty >= 0).all())
    assert bool((whole.standard_error > 0).all())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_know_what_nothing_matters_looks_like(name: str) -> None:
    """Equal similarities: importance is `neutral`; all-ones masks: importance is the similarity,
    no variance is left, and nothing is known of the error.
    """
    masks = torch.rand(20, *EXAMPLE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for given in (masks, torch.ones_like(masks)):
        accumulator = ESTIMATORS.get(name).start()
        accumulator.update(torch.full((20, 1), 0.7, dtype=torch.float64), given)
        result = accumulator.finish()
        torch.testing.assert_close(result.importance, result.neutral.expand_as(result.importance), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        result.importance, torch.full((1, *EXAMPLE), 0.7, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert float(result.uncertainty.max()) < 1e-12
    assert bool(result.standard_error.isnan().all())


# -- similarities ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_compare_row_by_row(name: str) -> None:
    compare = similarity(name)
    h, masked = rand(3, 4), rand(5, 3, 4, seed=1)
    masked[2, 1] = 0
    result = compare(h, masked)
    assert result.shape == (5, 3)
    assert bool(torch.isfinite(result).all())
    for i in range(3):
        torch.testing.assert_close(
            compare(h[i : i + 1], masked[:, i : i + 1]), result[:, i : i + 1], rtol=0, atol=1e-13
        )
    assert torch.equal(compare(h.float(), masked.float()).isfinite(), torch.ones(5, 3, dtype=torch.bool))
    if is_directional(compare):
        assert float(result.abs().max()) <= 1
        torch.testing.assert_close(compare(h, h[None]), torch.ones(1, 3, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_have_gradients(name: str) -> None:
    h, masked = rand(2, 4), rand(3, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: similarity(name)(h, m), (masked,))


# -- all together ----------------------------------------------------------------------------------


def pairs(*registries: Registry[object]) -> list[tuple[str, ...]]:
    """Rows of names in which every entry of a registry meets every entry of each other one."""
    names = [list(r) for r in registries]
    rows = []
    for i, j in itertools.combinations(range(len(names)), 2):
        for k, pair in enumerate(itertools.product(names[i], names[j])):
            row = [n[k % len(n)] for n in names]
            row[i], row[j] = pair
            rows.append(tuple(row))
    return sorted(set(rows))


@pytest.mark.parametrize(
    ("strategy", "fill", "estimator", "compare"), pairs(STRATEGIES, FILLS, ESTIMATORS, SIMILARITIES)
)
def test_everything_goes_with_everything(strategy: str, fill: str, estimator: str, compare: str) -> None:
    x = rand(2, *EXAMPLE)
    explainer = rq.RELAX(relu_encoder(96), masks=strategy, similarity=similarity(compare), estimator=estimator)
    result = explainer.explain(x, baselines=fill, n_samples=12)
    assert result.estimator == estimator
    for values in (result.importance, result.uncertainty, result.standard_error, result.centred(), result.u_relax()):
        assert values.shape == x.shape
        assert bool(torch.isfinite(values).all())
    assert float(result.importance[0].std()) > 0

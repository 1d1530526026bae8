"""The documentation's generated pages: one an entry of each registry,
each with formula, picture and knobs; the build itself runs every example.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.benchmark.metrics.excluded import EXCLUDED
from relax_quantus.relax.estimators import ESTIMATORS
from relax_quantus.relax.fills import FILLS, Fill
from relax_quantus.relax.masks import STRATEGIES

DOCS = Path(__file__).resolve().parents[1] / "docs"

sys.path.insert(0, str(DOCS / "extensions"))
from catalogue import pages  # noqa: E402


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return pages.all_pages(DOCS)


@pytest.mark.parametrize(("kind", "registry"), [("masks", STRATEGIES), ("fills", FILLS), ("estimators", ESTIMATORS)])
def test_every_entry_has_a_page_with_formula_picture_and_knobs(written, kind, registry):
    for name in registry:
        page = written[f"{kind}/{name}"]
        assert ".. math::" in page
        assert f"pictures/{name}.png" in page
        assert "Source: " in page
        assert re.search(r"## Knobs\n\n(None\.|````\{eval-rst\}\n\.\. list-table)", page)
        assert "     - \n" not in page, f"{name}: a knob without a meaning"


def test_every_metric_is_on_one_page_with_what_the_registry_says(written):
    for name in METRICS:
        metric = METRICS.get(name)
        (page,) = [
            text
            for key, text in written.items()
            if key.startswith("metrics/") and key != "metrics/index" and f"`{name}`" in text
        ]
        for said in (
            metric.configuration,
            metric.range,
            metric.source,
            metric.formula,
            pages.DIRECTION[metric.direction],
        ):
            assert said
            assert said in page


def test_every_metric_page_says_what_the_metric_means(written):
    for name in pages.families():
        assert "## What it means" in written[f"metrics/{name}"], (
            f"{name}: expected a paragraph in docs/metrics.md that begins with its name"
        )


def test_every_excluded_metric_has_its_reason(written):
    for entry in EXCLUDED:
        assert entry.reason in written[f"metrics/{entry.name}"]


def test_a_new_entry_gets_its_page_and_one_without_a_formula_stops_the_build(monkeypatch):
    class Hum(Fill):
        r"""Mains hum.

        Notes
        -----
        .. math:: b = 50

        Source: the wall.
        """

    class Silent(Fill):
        """Says nothing of itself."""

    monkeypatch.setattr(FILLS, "_factories", {**FILLS._factories, "hum": (Hum, "hum"), "silent": (Silent, "silent")})
    assert "b = 50" in pages.entry_page("fills", "hum")
    with pytest.raises(ValueError, match="expected a formula in the Notes of 'silent'"):
        pages.entry_page("fills", "silent")


def test_knobs_of_base_classes_are_explained():
    page = pages.entry_page("masks", "time")
    assert "``keep_probability``" in page
    assert "Expected mask value of every bin" in page

"""``report.html``: valid, loads nothing, says what
the tables say, and sorts them in a real browser.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pandas as pd
import planted_results as planted
import pytest
from PIL import Image

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.report import report
from relax_quantus.benchmark.report.findings import MOST, all_against, failures, in_short, sentence
from relax_quantus.benchmark.report.html import drawn, quoted, scale, section
from relax_quantus.benchmark.report.page import toml
from relax_quantus.benchmark.report.pictures import KINDS, pictures, smaller
from relax_quantus.benchmark.statistics.rows import checked

CHROMIUM = shutil.which("chromium")
HOSTILE = "<script>alert(1)</script> & *b* | `x`"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run's results and its report, some cells of it lost."""
    path = tmp_path_factory.mktemp("results")
    table = planted.rows(sources=12, clips=1, seeds=(0,), fills=("silence",), evaluators=("silence", "mean"))
    table = table[table.metric.isin(["AUC", "AUC-region"]) | table.metric.str.startswith("SRG-")].copy()
    lost = table.index[(table.metric == "AUC") & (table.method == "energy")]
    table.loc[lost, ["value", "status", "reason"]] = [np.nan, "failed", HOSTILE]
    planted.folder(path, table)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # figures have tests of their own; here some pictures by their names are enough
        patch.setattr("relax_quantus.benchmark.report.figures.draw", lambda found, to: painted(to))
        report(path)
    return path


def painted(to: Path) -> list[Path]:
    """Pictures that do not compress well, under the names of figures."""
    to.mkdir()
    paths = [to / f"{kind}-gain_embedding.png" for kind in KINDS]
    for i, path in enumerate(paths):
        noise = np.random.default_rng(i).integers(0, 255, (60 + 10 * i, 200, 3), np.uint8)
        Image.fromarray(noise).save(path)
    return paths


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def parsed(html: str) -> Any:
    """The document, if it is valid HTML as the standard's own parser reads it."""
    return html5lib.HTMLParser(namespaceHTMLElements=False, strict=True).parse(html)


def test_the_page_is_valid_and_loads_nothing(html: str) -> None:
    document = parsed(html)
    ids = [e.get("id") for e in document.iter() if e.get("id")]
    assert len(set(ids)) == len(ids)
    for element in document.iter():
        for name in ("src", "href"):
            target = element.get(name)
            assert target is None or target.startswith("data:") or target.removeprefix("#") in ids
        for name in ("aria-labelledby", "for"):
            assert element.get(name) is None or element.get(name) in ids
    levels = [int(e.tag[1]) for e in document.iter() if re.fullmatch("h[1-6]", str(e.tag))]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert html.startswith("<!DOCTYPE html>\n<html lang=")


def test_what_a_run_wrote_is_text(html: str) -> None:
    assert "<script>alert" not in html
    cells = ["".join(td.itertext()) for td in parsed(html).iter("td")]
    assert HOSTILE in cells


def test_the_page_says_what_the_tables_say(folder: Path, html: str) -> None:
    document = parsed(html)
    shown = [
        [[" ".join("".join(c.itertext()).split()) for c in tr if c.tag in ("td", "th")] for tr in t.iter("tr")]
        for t in document.iter("table")
    ]
    for name in ("table.md", "statistics.md"):
        for block in re.findall(r"(?:^\|.*\n)+", (folder / name).read_text(encoding="utf-8"), re.M):
            lines = [re.split(r" \| ", line.strip("|\n ").replace("**", "")) for line in block.splitlines()]
            wanted = [lines[0], *lines[2:]]
            if lines[0][-1] == "" or len(lines[0]) < len(lines[2]):  # the verdicts' column, which the page moves
                wanted = [lines[0], *([*row[:2], row[-1], *row[2:-1]] for row in lines[2:])]
            assert any(rows[1:] == wanted[1:] for rows in shown), block


def test_verdicts_are_those_of_the_statistics(folder: Path, html: str) -> None:
    import json

    summary = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    text = " ".join("".join(parsed(html).itertext()).split())
    for endpoint in summary["endpoints"]:
        for c in endpoint["families"][0]["comparisons"]:
            assert c["verdict"] in text
    assert "RELAX-time above RELAX-frequency: by 0." in text


def test_a_sentence_turns_a_negative_difference_round() -> None:
    c = {
        "a": "RELAX-time", "b": "RELAX-random", "n": 9, "significant": True, "verdict": "RELAX-random above RELAX-time",
        "difference": {"value": -0.2, "low": -0.3, "high": -0.1, "n": 9}, "p": 0.004, "p_holm": 0.012,
    }  # fmt: skip
    assert sentence(c).replace("\\", "") == (
        "**RELAX-random above RELAX-time**: by 0.200 [0.100, 0.300] on 9 source groups (p = 0.012 after correction)."
    )
    torn = {**c, "verdict": "differ, but mean and ranks disagree"}
    assert (
        sentence(torn)
        .replace("\\", "")
        .startswith("RELAX-time and RELAX-random: differ, but mean and ranks disagree; the difference is -0.200")
    )
    open_ = {**c, "significant": False, "verdict": "not told apart"}
    assert "not told apart; the difference is -0.200 [-0.300, -0.100]" in sentence(open_).replace("\\", "")
    twins = {"name": "strategies and their shuffled twins", "comparisons": [c, {**open_, "a": "RELAX-frequency"}]}
    assert all_against(twins).replace("\\", "") == (
        "Below their shuffled twins, which know nothing: RELAX-time; not told from their shuffled twins, which know nothing: RELAX-frequency."
    )
    assert "No two mask strategies" in in_short({"endpoints": []})


def test_reasons_are_counted_and_the_rarest_left_to_the_file(folder: Path) -> None:
    rows = checked(pd.read_parquet(folder / "results.parquet"))
    said = failures(rows)
    assert said.startswith(f"12 of {len(rows)} cells have no value")
    many = rows.head(MOST + 5).assign(status="failed", reason=[f"reason {i}" for i in range(MOST + 5)])
    assert "5 more kinds are in results.csv" in failures(many)
    assert failures(many).count("\n| failed") == MOST
    assert failures(rows[rows.status == "ok"]) == "Every cell has a value.\n"


def test_intervals_are_drawn_on_one_scale_with_zero() -> None:
    made = section(
        "# t\n\n| m | x |\n|---|---|\n| a | 0.500 [0.250, 1.000] |\n| b | **-1.000 [-1.000, 0.000]** |\n", "p"
    ).html
    assert made.count("<svg") == 2
    assert 'data-value="0.5"' in made
    assert 'data-value="-1"' in made
    assert scale([(0.5, 0.25, 1.0), (-1.0, -1.0, 0.0)]) == (-1.0, 1.0)
    assert scale([(0.5, 0.4, 0.6), (0.7, 0.6, 0.8)]) == (0.0, 0.8)
    assert scale([(0.5, 0.4, 0.6)]) is None
    assert 'class="zero" x1="48.0"' in drawn((0.5, 0.25, 1.0), (-1.0, 1.0))
    assert 'cx="70.0"' in drawn((0.5, 0.25, 1.0), (-1.0, 1.0))


@pytest.mark.parametrize("text", [HOSTILE, "a_b_c", "1. no list", "# no heading", "~~x~~", "[a](b)", "\\", "a\nb"])
def test_quoted_text_is_shown_as_it_is(text: str) -> None:
    assert "".join(html5lib.parseFragment(section(quoted(text), "p").html).itertext()).strip() == " ".join(text.split())


def test_settings_can_be_run_again(tmp_path: Path) -> None:
    config = BenchmarkConfig(
        preset="paper", seeds=(3, 4), methods=("RELAX-time", 'a "b"'), data="é x", time_limit=2.5, strict=True
    )
    path = tmp_path / "run.toml"
    path.write_text(toml({**config.as_dict(), "seeds": [3, 4], "methods": list(config.methods)}), encoding="utf-8")
    assert BenchmarkConfig.from_file(path) == config


def test_a_page_carries_so_many_bytes_of_pictures_and_no_more(folder: Path) -> None:
    found = sorted((folder / "figures").glob("*.png"))
    sizes = [len(smaller(path)[0]) for path in found]
    made = pictures(found, most_bytes=sizes[0] + 10)
    assert made[0].uri
    assert not any(p.uri for p, size in zip(made[1:], sizes[1:], strict=True) if size > 10)
    wide = folder / "wide.png"
    Image.new("RGB", (4000, 100)).save(wide)
    assert smaller(wide)[1:] == (1600, 40)
    wide.unlink()


def test_rows_are_not_in_the_page(html: str) -> None:
    without = re.sub(r"data:image/png;base64,[^\"]*", "", html)
    assert len(without) < 170_000
    assert html.count("data:image/png") >= 5


def test_without_run_and_figures(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "results.parquet", tmp_path)
    report(tmp_path, figures=False)
    bare = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed(bare)
    assert "run.toml" not in bare
    assert '<h2 id="figures"' not in bare


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Any]:
    """The page, which must neither complain nor ask for anything but itself."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    address = (folder / "report.html").as_uri()
    page.on("request", lambda r: None if r.url == address or r.url.startswith("data:") else complaints.append(r.url))
    page.goto(address)
    yield page
    assert complaints == []
    page.close()


def column(page: Any, heading: str) -> list[str]:
    """The first score table's column, as it is shown."""
    table = page.locator("#scores ~ .scroll table").first
    names = [name.strip() for name in table.locator("thead th").all_inner_texts()]
    at = next(i for i, name in enumerate(names) if name.startswith(heading))
    return [text.strip() for text in table.locator(f"tbody tr > :nth-child({at + 1})").all_inner_texts()]


def test_a_click_on_a_heading_sorts_and_says_so(opened: Any) -> None:
    heading = opened.locator("#scores ~ .scroll table").first.locator("thead th", has_text="gain − twin")
    before = column(opened, "gain − twin")
    orders = []
    for wanted in ("descending", "ascending", "none"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == wanted
        orders.append(column(opened, "gain − twin"))
        assert opened.inner_text("#said").endswith("original order." if wanted == "none" else f"{wanted}.")
    values = [[float(text.split(" [")[0]) for text in order if text != "–"] for order in orders]
    assert values[0] == sorted(values[0], reverse=True) != values[1] == sorted(values[1])
    assert orders[0][-1] == orders[1][-1] == "–"
    assert orders[2] == before


def test_sorting_by_keyboard_and_by_name(opened: Any) -> None:
    table = opened.locator("#scores ~ .scroll table").first
    button = table.locator("thead th button").first
    button.focus()
    opened.keyboard.press("Enter")
    names = column(opened, "method")
    assert names[0] == "energy"
    opened.keyboard.press("Space")
    assert column(opened, "method") == names[::-1]
    opened.keyboard.press("Enter")
    assert column(opened, "method") != names
    opened.keyboard.press("Enter")
    assert table.locator("thead th[aria-sort=ascending]").count() == 1
    table.locator("thead th button").nth(1).click()
    assert table.locator("thead th").first.get_attribute("aria-sort") == "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_scroll_in_tables_only(opened: Any, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": 360, "height": 700})
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    colours = opened.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    light, dark = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in colours)
    assert abs(light - dark) > 500


def test_it_prints(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert opened.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert len(opened.pdf()) > 50_000

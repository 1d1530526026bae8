"""The page of an explanation: what it carries, and what it does in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.explanation import Explanation
from relax_quantus.report import Entry, Layer, index_page, page
from relax_quantus.report.packing import UNKNOWN, packed

CHROMIUM = shutil.which("chromium")
HOSTILE = "<script>alert(1)</script>&\"'é.wav"
VOID = {"meta", "link", "input", "br", "hr", "img"}


def explanation(seed: int, examples: int = 2) -> Explanation:
    """A smooth map with one hill an example, and made-up errors."""
    frame, band = torch.meshgrid(torch.arange(96.0), torch.arange(64.0), indexing="ij")
    hills = [
        torch.exp(-(((frame - 20 - 15 * seed - 20 * i) / 9) ** 2) - ((band - 15 - 10 * seed) / 7) ** 2)
        for i in range(examples)
    ]
    importance = 0.8 + 0.1 * torch.stack(hills)[:, None]
    mean = importance.mean(dim=(1, 2, 3))
    return Explanation(
        importance=importance,
        uncertainty=0.02 + 0.01 * torch.rand(importance.shape, generator=torch.Generator().manual_seed(seed)),
        standard_error=torch.full_like(importance, 0.01) + 0.01 * (band / 64),
        mean_similarity=mean,
        fully_masked_similarity=torch.full((examples,), 0.4),
        n_samples=torch.full((examples,), 500),
        neutral=mean.reshape(-1, 1, 1, 1),
        estimator="weighted",
    )


def layers(fills: tuple[str, ...] = ("silence", "noise")) -> list[Layer]:
    return [
        Layer(strategy, fill, explanation(i + 2 * j))
        for i, strategy in enumerate(("random", "time_frequency"))
        for j, fill in enumerate(fills)
    ]


@pytest.fixture(scope="module")
def html(sweep: np.ndarray) -> str:
    examples = torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(5))
    notes = {"fill": "silence & more"}
    return page(HOSTILE, examples, layers(), original=(sweep, 16_000), lead="bird, 97 %", notes=notes)


class Checker(HTMLParser):
    """Collects unbalanced tags, attributes that load something, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.uses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.wrong.append(f"{tag}: twice the same attribute")
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "poster", "action"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name in ("for", "aria-labelledby", "aria-describedby"):
                self.uses += (value or "").split()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker


def payload(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    return dict(json.loads(found[1]))


def test_page_is_well_formed_and_loads_nothing(html: str) -> None:
    found = check(html)
    assert (found.open, found.wrong) == ([], [])
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.uses) <= set(found.ids)
    assert found.loads
    assert all(value.startswith("data:") for value in found.loads)
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(", html.replace("data:", ""))


def test_names_are_escaped(html: str) -> None:
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in html


def test_page_carries_the_maps(html: str) -> None:
    data = payload(html)
    assert [(e["strategy"], e["fill"]) for e in data["layers"]][1] == ("random", "noise")
    for layer, carried in zip(layers(), data["layers"], strict=True):
        for name, values in (("importance", layer.explanation.importance), ("centred", layer.explanation.centred())):
            code = carried["maps"][name]
            codes = np.frombuffer(base64.b64decode(code["data"]), "<u2")
            read = code["low"] + codes * (code["high"] - code["low"]) / (UNKNOWN - 1)
            np.testing.assert_allclose(read, values.flatten(), atol=2e-6)


def test_page_carries_sounds_that_add_up(html: str, sweep: np.ndarray) -> None:
    sources = [base64.b64decode(s) for s in re.findall(r'src="data:audio/flac;base64,([^"]+)"', html)]
    waves = [soundfile.read(BytesIO(s))[0] for s in sources]
    assert len(waves) == 1 + 2 * len(layers())
    np.testing.assert_allclose(waves[0], sweep[: waves[0].size], atol=1e-4)
    for kept, removed in zip(waves[1::2], waves[2::2], strict=True):
        np.testing.assert_allclose(kept + removed, waves[0], atol=1e-4)
        assert np.abs(kept).max() > 0.01


def test_codes_of_values_that_are_not_known() -> None:
    codes = np.frombuffer(base64.b64decode(packed(np.array([1.0, np.nan, 3.0]))["data"]), "<u2")
    assert codes.tolist() == [0, UNKNOWN, UNKNOWN - 1]
    assert packed(np.full(2, np.nan))["low"] == 0


def test_layers_that_do_not_fit() -> None:
    x = torch.zeros(2, 1, 96, 64)
    with pytest.raises(ArgumentError, match="layers: expected at least one"):
        page("a", x, [])
    with pytest.raises(ArgumentError, match="layers: expected every strategy with every fill, once"):
        page("a", x, layers()[:3])
    with pytest.raises(ShapeError, match="layers: expected explanations of shape"):
        page("a", x[:1], layers())
    with pytest.raises(ShapeError, match="examples: expected shape"):
        page("a", x[:, 0], layers())


def test_example_without_an_explanation_and_without_sound() -> None:
    e = explanation(0)
    holes = {n: getattr(e, n).clone() for n in ("importance", "uncertainty", "standard_error", "neutral")}
    for values in holes.values():
        values[1] = torch.nan
    text = page("a", torch.zeros(2, 1, 96, 64), [Layer("time", "zero", Explanation(**{**vars(e), **holes}))])
    assert "<audio" not in text
    assert payload(text)["layers"][0]["median_uncertainty"][1] is None


def test_index_leads_to_pages() -> None:
    text = index_page([Entry("a%20b.html", HOSTILE, 1.5, "bird"), Entry("c.html", "c.wav", 2.0, "")])
    found = check(text)
    assert (found.open, found.wrong) == ([], [])
    assert found.loads[1:] == ["a%20b.html", "c.html"]
    assert "<script>" not in text


class Opened:
    """A page that is open in the browser, with everything that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.complaints: list[str] = []
        self.page = browser.new_page(viewport={"width": 1100, "height": 900}, **options)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.goto(path.as_uri())
        self.address = self.page.url

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:")) or (url.startswith("file:") and not url.endswith(".html")):
            self.complaints.append(f"asked for {url}")

    def pixels(self) -> str:
        """The picture as the browser drew it."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return str(self.page.evaluate("document.getElementById('picture').toDataURL()"))

    def until(self, condition: str) -> None:
        """Wait for a condition; the page's own policy forbids Playwright's way, which evaluates text in the page."""
        deadline = time.monotonic() + 20
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(50)

    def value(self) -> float:
        """The map's value that is read out."""
        found = re.search(r": centred importance (\S+) ±", self.text("readout"))
        assert found is not None, self.text("readout")
        return float(found[1].replace("\N{MINUS SIGN}", "-"))

    def text(self, name: str) -> str:
        return str(self.page.inner_text(f"#{name}"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, html: str, tmp_path: Path) -> Iterator[Opened]:
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    found = Opened(browser, path)
    yield found
    assert found.complaints == []
    found.page.close()


def test_every_switch_changes_the_picture(opened: Opened) -> None:
    seen = [opened.pixels()]
    assert opened.page.title().startswith(HOSTILE)

    def new(act: Callable[[], object]) -> None:
        act()
        now = opened.pixels()
        assert now not in seen
        seen.append(now)

    new(lambda: opened.page.check("input[name=strategy][value=time_frequency]"))
    new(lambda: opened.page.check("input[name=fill][value=noise]"))
    for name in ("importance", "u_relax", "uncertainty", "standard_error"):
        new(lambda name=name: opened.page.check(f"input[name=map][value={name}]"))  # type: ignore[misc]
    opened.page.check("input[name=map][value=centred]")
    new(lambda: opened.page.fill("#share", "60"))
    assert opened.text("share-text").startswith("60 %")
    new(lambda: opened.page.check("#fade"))
    new(lambda: opened.page.fill("#opacity", "10"))
    new(lambda: opened.page.emulate_media(color_scheme="dark"))
    new(lambda: opened.page.set_viewport_size({"width": 400, "height": 800}))


def test_pointer_and_keys_read_the_map(opened: Opened) -> None:
    values = layers()[0].explanation.centred()
    area = opened.page.locator("#plot").bounding_box()
    opened.page.mouse.move(
        area["x"] + 58 + (area["width"] - 68) * 20.5 / 192, area["y"] + 8 + (area["height"] - 46) * (1 - 15.5 / 64)
    )
    assert opened.text("readout").startswith("0.213 s, ")
    assert opened.value() == pytest.approx(float(values[0, 0, 20, 15]), rel=0.01)
    opened.page.focus("#plot")
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("Shift+ArrowUp")
    assert opened.text("readout").startswith("0.223 s, ")
    assert opened.page.text_content("#spoken") == opened.text("readout")
    assert opened.value() == pytest.approx(float(values[0, 0, 21, 25]), rel=0.01)
    opened.page.keyboard.press("Home")
    assert opened.text("readout").startswith("0.013 s, ")


def test_players_play_and_the_head_follows(opened: Opened) -> None:
    ready = "[...document.querySelectorAll('audio')].every((a) => a.readyState >= 2 && a.duration > 1.9)"
    opened.until(ready)
    assert opened.page.locator("audio:visible").count() == 3
    left = "parseFloat(document.getElementById('head').style.left)"
    before = opened.page.evaluate(left)
    opened.page.evaluate("document.querySelector('figure:not([hidden]) audio[data-part=kept]').play()")
    opened.until("document.querySelector('audio[data-part=kept]').currentTime > 0.2")
    opened.until(f"{left} > {before + 20}")
    opened.page.check("input[name=strategy][value=time_frequency]")
    playing = "[...document.querySelectorAll('audio')].filter((a) => !a.paused)"
    opened.until(f"{playing}.length === 1 && {playing}[0].closest('figure').dataset.layer === '2'")
    assert opened.page.locator("audio:visible").count() == 3
    opened.page.focus("#plot")
    opened.page.keyboard.press("Space")
    opened.until(f"{playing}.length === 0")


def test_click_seeks(opened: Opened) -> None:
    opened.until("document.querySelector('audio').readyState >= 2")
    area = opened.page.locator("#plot").bounding_box()
    opened.page.mouse.click(area["x"] + 58 + (area["width"] - 68) / 2, area["y"] + 100)
    assert opened.page.evaluate("document.querySelector('audio').currentTime") == pytest.approx(0.96, abs=0.02)


def test_everything_can_be_reached_by_keyboard(opened: Opened) -> None:
    found = set()
    for _ in range(30):
        opened.page.keyboard.press("Tab")
        found.add(
            opened.page.evaluate(
                "document.activeElement.name || document.activeElement.id || document.activeElement.localName"
            )
        )
    assert {"strategy", "fill", "map", "share", "opacity", "fade", "plot", "audio", "summary"} <= found


def test_controls_have_names_for_screen_readers(opened: Opened) -> None:
    for role, name in (
        ("radio", "U-RELAX"),
        ("slider", "Highest"),
        ("checkbox", "fade what is unsure"),
        ("application", "Spectrogram"),
    ):
        assert opened.page.get_by_role(role, name=re.compile(name)).count() >= 1
    assert opened.page.locator("audio:visible").first.get_attribute("aria-labelledby") == "label-original"

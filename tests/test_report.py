"""The page of an explanation: what it carries, and what it does in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
import soundfile
import torch

from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.explanation import Explanation
from relax_quantus.report import Companion, Entry, Layer, Recording, index_page, page
from relax_quantus.report import sounds as page_sounds
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


def companions(wave: np.ndarray) -> list[Companion]:
    """One recording towards which, and two that stand for what is away."""
    noise = torch.rand(1, 1, 96, 64, generator=torch.Generator().manual_seed(9))
    heard = [Recording(f"{name} {HOSTILE}", noise, wave, 16_000, "1 s") for name in ("first", "second", "third")]
    away = Companion("away", "crowd", torch.tensor([-0.25, torch.nan]), heard[1:], "and 12 more")
    return [Companion("towards", HOSTILE, torch.tensor([0.5, 0.75]), heard[:1]), away]


@pytest.fixture(scope="module")
def html(sweep: np.ndarray) -> str:
    examples = torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(5))
    notes = {"fill": "silence & more"}
    beside = companions(sweep[8000:])
    return page(
        HOSTILE, examples, layers(), original=(sweep, 16_000), lead="bird, 97 %", notes=notes, companions=beside
    )


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


@pytest.mark.parametrize("which", ["page", "plain page", "index"])
def test_html_is_valid(which: str, html: str) -> None:
    """By the parser that the HTML standard describes, which refuses what a browser would mend."""
    text = {
        "page": lambda: html,
        "plain page": lambda: page("a", torch.zeros(1, 1, 96, 64), [Layer("time", "zero", explanation(0, 1))]),
        "index": lambda: index_page([Entry("a%20b.html", HOSTILE, 1.5, "bird")]),
    }[which]()
    html5lib.HTMLParser(strict=True).parse(text)
    with pytest.raises(html5lib.html5parser.ParseError):
        html5lib.HTMLParser(strict=True).parse(text.replace("<main>", "<main><p><div></p>", 1))


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


def carried_sounds(text: str) -> list[list[dict[str, np.ndarray]]]:
    """By layer and level: both parts."""
    players = dict(re.findall(r'data-part="(\w+)" src="data:audio/flac;base64,([^"]+)"', text))
    found = []
    for layer in payload(text)["heard"]["parts"]:
        sources = [{p: s.partition(",")[2] for p, s in both.items()} if both else players for both in layer]
        found.append([{p: sound(both[p]) for p in ("kept", "removed")} for both in sources])
    return found


def sound(source: str) -> np.ndarray:
    return np.asarray(soundfile.read(BytesIO(base64.b64decode(source)))[0])


def test_page_carries_sounds_that_add_up_at_every_level(html: str, sweep: np.ndarray) -> None:
    original = re.search(r'data-part="original" src="data:audio/flac;base64,([^"]+)"', html)
    assert original is not None
    whole = sound(original[1])
    np.testing.assert_allclose(whole, sweep[: whole.size], atol=1e-4)
    assert payload(html)["heard"]["levels"] == [0.05, 0.2, 0.5]
    assert len(carried_sounds(html)) == len(layers())
    for layer in carried_sounds(html):
        loudness = [float(np.square(both["kept"]).mean()) for both in layer]
        assert 0 < loudness[0] < loudness[1] < loudness[2]
        for both in layer:
            np.testing.assert_allclose(both["kept"] + both["removed"], whole, atol=1e-4)


def test_size_of_the_sounds_is_bounded(sweep: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    x, one = torch.zeros(2, 1, 96, 64), len(page_sounds.sound_uri(sweep[:31_120], 16_000))
    for room, levels, heard in ((21, 2, 4), (9, 1, 4), (5, 1, 2), (1.5, 0, 0)):
        monkeypatch.setattr(page_sounds, "MOST_CHARACTERS", int(room * one))
        text = page("a", x, layers(), original=(sweep, 16_000))
        found = payload(text)["heard"]
        assert (found["levels"] if found else []) == [[], [0.2], [0.05, 0.2]][levels]
        assert (sum(layer is not None for layer in found["parts"]) if found else 0) == heard
        assert len("".join(re.findall(r"data:audio/flac;base64,[^\"]+", text))) <= room * one
        assert ("sounds in a page are bounded" in text) == (heard < 4)
    monkeypatch.setattr(page_sounds, "MOST_CHARACTERS", one // 2)
    text = page("a", x, layers(), original=(sweep, 16_000))
    assert "too long to be heard here" in text
    assert "<audio" not in text


def test_what_it_is_compared_with_is_named_shown_and_played(html: str, sweep: np.ndarray) -> None:
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', html)
    cells = {name: re.findall(r"<td>(.*?)</td>", values) for name, values in rows}
    assert cells["this recording"] == ["0.62 (0.50 to 0.75 in its 2 examples)", "\u22120.25", "0.75"]
    assert cells["nothing but the fill, noise"] == ["\u2013", "\u2013", "0.40"]
    assert html.count('<div class="beside-plot">') == 3
    assert "Away from crowd</h3>" in html
    assert "and 12 more" in html
    source = re.search(r'aria-labelledby="beside-1-1" src="data:audio/flac;base64,([^"]+)"', html)
    assert source is not None
    np.testing.assert_allclose(sound(source[1]), sweep[8000 : 8000 + 15_760], atol=1e-4)


def test_companions_that_do_not_fit(sweep: np.ndarray) -> None:
    x, (towards, away) = torch.zeros(2, 1, 96, 64), companions(sweep)
    with pytest.raises(ArgumentError, match="companions: expected at most one of each of towards, away"):
        page("a", x, layers(), companions=[towards, towards])
    with pytest.raises(ShapeError, match=r"companions: expected one similarity an example, shape \(2,\)"):
        page("a", x, layers(), companions=[dataclasses.replace(away, similarity=torch.zeros(3))])
    wrong = dataclasses.replace(towards.recordings[0], examples=torch.zeros(1, 1, 96, 63))
    with pytest.raises(ShapeError, match="companions: expected recordings of shape"):
        page("a", x, layers(), companions=[dataclasses.replace(towards, recordings=[wrong])])


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


PLAYING = "[...document.querySelectorAll('audio')].filter((a) => !a.paused)"


def source_of(opened: Opened, part: str) -> str:
    return str(opened.page.evaluate(f"document.querySelector('audio[data-part={part}]').getAttribute('src')"))


def test_players_play_and_the_head_follows(opened: Opened) -> None:
    ready = "[...document.querySelectorAll('#players audio')].every((a) => a.readyState >= 2 && a.duration > 1.9)"
    opened.until(ready)
    assert opened.page.locator("#players audio:visible").count() == 3
    left = "parseFloat(document.getElementById('head').style.left)"
    before = opened.page.evaluate(left)
    opened.page.evaluate("document.querySelector('audio[data-part=kept]').play()")
    opened.until("document.querySelector('audio[data-part=kept]').currentTime > 0.2")
    opened.until(f"{left} > {before + 20}")
    opened.page.check("input[name=strategy][value=time_frequency]")
    opened.until(f"{PLAYING}.length === 1 && {PLAYING}[0].currentTime > 0.3")
    opened.page.focus("#plot")
    opened.page.keyboard.press("Space")
    opened.until(f"{PLAYING}.length === 0")


def test_slider_masks_and_fills_choose_the_sound(opened: Opened, html: str) -> None:
    carried = payload(html)["heard"]["parts"]
    first = {part: source_of(opened, part) for part in ("kept", "removed")}
    for share, level, said in (("7", 0, "5"), ("13", 1, "20"), ("36", 2, "50"), ("20", 1, "20")):
        opened.page.fill("#share", share)
        for part in ("kept", "removed"):
            assert source_of(opened, part) == (first if level == 1 else carried[0][level])[part]
        assert opened.text("kept-share") == f"the highest {said} %"
        assert opened.text("removed-share") == f"the other {100 - int(said)} %"
    opened.page.check("input[name=fill][value=noise]")
    assert source_of(opened, "kept") == carried[1][1]["kept"]
    opened.page.check("input[name=strategy][value=time_frequency]")
    assert source_of(opened, "removed") == carried[3][1]["removed"]
    opened.until("document.querySelector('audio[data-part=removed]').readyState >= 2")


def test_recordings_beside_have_a_picture_and_a_player_of_their_own(opened: Opened) -> None:
    plots = opened.page.locator(".beside-plot")
    drawn = {plots.nth(i).evaluate("(e) => e.querySelector('canvas').toDataURL()") for i in range(plots.count())}
    assert plots.count() == 3
    assert len(drawn) == 1  # the same second thrice
    widths = [e.bounding_box()["width"] - 68 for e in (opened.page.locator("#plot"), plots.first)]
    assert widths[1] == pytest.approx(widths[0] / 2, abs=2)  # a second is as wide in both
    opened.until("[...document.querySelectorAll('#beside audio')].every((a) => a.readyState >= 2)")
    opened.page.evaluate("document.querySelector('#players audio').play()")
    opened.page.evaluate("document.querySelector('#beside audio').play()")
    opened.until(f"{PLAYING}.length === 1 && {PLAYING}[0].closest('#beside') && {PLAYING}[0].currentTime > 0.1")
    left = "parseFloat(document.querySelector('.beside-plot .head').style.left)"
    opened.until(f"{left} > 70")
    plots.nth(1).click(position={"x": 58 + widths[1] / 2, "y": 50})
    assert opened.page.evaluate("document.querySelectorAll('#beside audio')[1].currentTime") == pytest.approx(
        0.48, abs=0.02
    )


@pytest.mark.parametrize(("motion", "steps"), [("no-preference", 8), ("reduce", 2)])
def test_play_head_glides_unless_motion_is_to_be_reduced(opened: Opened, motion: str, steps: int) -> None:
    opened.page.emulate_media(reduced_motion=motion)
    opened.until("document.querySelector('#players audio').readyState >= 2")
    opened.page.evaluate("document.querySelector('#players audio').play()")
    opened.until("document.querySelector('#players audio').currentTime > 0.05")
    seen = opened.page.evaluate(
        """new Promise((done) => {
          const seen = new Set(), end = performance.now() + 900;
          (function look() {
            seen.add(document.getElementById("head").style.left);
            if (performance.now() < end) requestAnimationFrame(look); else done(seen.size);
          })();
        })"""
    )
    assert (seen >= steps) if motion == "no-preference" else (1 < seen <= steps + 1)


def test_click_seeks(opened: Opened) -> None:
    opened.until("document.querySelector('audio').readyState >= 2")
    area = opened.page.locator("#plot").bounding_box()
    opened.page.mouse.click(area["x"] + 58 + (area["width"] - 68) / 2, area["y"] + 100)
    assert opened.page.evaluate("document.querySelector('audio').currentTime") == pytest.approx(0.96, abs=0.02)


def test_everything_can_be_reached_by_keyboard(opened: Opened) -> None:
    found = set()
    for _ in range(70):
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

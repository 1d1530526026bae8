"""The page of an explanation: what it does in a real browser."""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from explanation_pages import HOSTILE, layers, payload

from relax_quantus.views.page import Layer, page

CHROMIUM = shutil.which("chromium")


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
        """Wait for a condition; the page's own policy forbids
        Playwright's way, which evaluates text in the page.
        """
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
    for name in ("importance", "u_relax", "uncertainty", "standard_error", "centred_standard_error"):
        new(lambda name=name: opened.page.check(f"input[name=map][value={name}]"))  # type: ignore[misc]
    opened.page.check("input[name=map][value=centred]")
    new(lambda: opened.page.fill("#fraction", "60"))
    assert opened.text("fraction-text").startswith("60 % of the largest, ")
    new(lambda: opened.page.uncheck("#beyond"))
    new(lambda: opened.page.fill("#fraction", "0"))
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


def test_the_error_read_out_is_that_of_the_map_or_unknown(browser: Any, tmp_path: Path) -> None:
    e = layers()[0].explanation
    error = e.centred_standard_error.clone()
    error[:, :, :, 40:] = torch.nan
    deaf = dataclasses.replace(e, fully_masked_similarity=e.mean_similarity)
    shown = [Layer("time", "zero", dataclasses.replace(e, centred_standard_error=error)), Layer("random", "zero", deaf)]
    path = tmp_path / "page.html"
    path.write_text(page("a", torch.zeros(2, 1, 96, 64), shown), encoding="utf-8")
    opened = Opened(browser, path)
    opened.page.focus("#plot")
    opened.page.keyboard.press("ArrowRight")  # frame 0, band 32
    assert f" \u00b1 {float(error[0, 0, 0, 32]):.3g}, z " in opened.text("readout").replace("0.00200", "0.002")
    opened.page.check("input[name=map][value=importance]")
    assert f" \u00b1 {float(e.standard_error[0, 0, 0, 32]):.3g}" in opened.text("readout").replace("0.0150", "0.015")
    opened.page.focus("#plot")
    opened.page.keyboard.press("Shift+ArrowUp")
    opened.page.check("input[name=map][value=centred]")
    assert "error unknown" in opened.text("readout")
    opened.page.check("input[name=map][value=centred_standard_error]")
    assert "unknown" in opened.text("readout")
    opened.page.check("input[name=map][value=centred]")
    opened.page.check("#fade")
    opened.page.uncheck("#beyond")
    opened.page.fill("#fraction", "0")
    colours = opened.page.evaluate(COLOURED)
    assert colours["low"] > 0
    assert colours["high"] == 0  # an unknown error fades altogether
    assert opened.page.locator("#verdict").is_hidden()
    opened.page.uncheck("#fade")
    opened.page.check("#beyond")
    opened.page.check("input[name=strategy][value=random]")
    assert opened.text("verdict") == "This network hears nothing here; nothing stands out."
    colours = opened.page.evaluate(COLOURED)
    assert colours["low"] == colours["high"] == 0
    opened.page.close()


COLOURED = """(() => {
  const canvas = document.getElementById("picture"), { width, height } = canvas, context = canvas.getContext("2d");
  const count = (from, to) => {
    const pixels = context.getImageData(60, 8 + from * (height - 46), width - 72, (to - from) * (height - 46)).data;
    let coloured = 0;
    for (let i = 0; i < pixels.length; i += 4) if (Math.abs(pixels[i] - pixels[i + 2]) > 3) coloured++;
    return coloured;
  };
  return { high: count(0.02, 0.35), low: count(0.4, 0.98) };
})()"""


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
    for fraction, level, said in (("7", 0, "10"), ("17", 1, "20"), ("36", 2, "50"), ("20", 1, "20")):
        opened.page.fill("#fraction", fraction)
        for part in ("kept", "removed"):
            assert source_of(opened, part) == (first if level == 1 else carried[0][level])[part]
        assert opened.text("kept-from") == f"effects from {said} % of the largest on"
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
    assert {"strategy", "fill", "map", "fraction", "beyond", "opacity", "fade", "plot", "audio", "summary"} <= found


def test_controls_have_names_for_screen_readers(opened: Opened) -> None:
    for role, name in (
        ("radio", "U-RELAX"),
        ("slider", "Effects from"),
        ("checkbox", "only beyond chance"),
        ("checkbox", "fade what is unsure"),
        ("application", "Spectrogram"),
    ):
        assert opened.page.get_by_role(role, name=re.compile(name)).count() >= 1
    assert opened.page.locator("audio:visible").first.get_attribute("aria-labelledby") == "label-original"

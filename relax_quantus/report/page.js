"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const UNKNOWN = 65535, MARGIN = { left: 58, right: 10, top: 8, bottom: 38 };
  const MINUS = "\u2212", PLUS_MINUS = "\u00b1";
  const DIVERGING = new Set(["centred", "cell_effects"]);
  const ERRORS = new Set(["uncertainty", "standard_error"]);

  // Values, as they were before they became 16 bits: index frame * bands + band; NaN where there is no explanation.
  function decode(packed) {
    const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
    const codes = new Uint16Array(bytes.buffer), step = (packed.high - packed.low) / (UNKNOWN - 1);
    return Float32Array.from(codes, (code) => (code === UNKNOWN ? NaN : packed.low + code * step));
  }

  const bands = data.bands, frames = data.frames, perExample = data.frames_per_example * bands;
  const spectrogram = decode(data.spectrogram);
  const layers = data.layers.map((layer) => {
    const maps = {};
    for (const [name, packed] of Object.entries(layer.maps)) maps[name] = decode(packed);
    maps.u_relax = maps.importance.map((v, i) => (maps.uncertainty[i] <= layer.median_uncertainty[Math.floor(i / perExample)] ? v : 0));
    return { ...layer, maps };
  });

  const cache = new Map();
  function remembered(key, make) {
    if (!cache.has(key)) cache.set(key, make());
    return cache.get(key);
  }
  function extremes(values, skipZero) {
    let low = Infinity, high = -Infinity;
    for (const v of values) if (!Number.isNaN(v) && !(skipZero && v === 0)) { low = Math.min(low, v); high = Math.max(high, v); }
    return [low, high];
  }
  // A map's own scale, so that a faint one can be read; the numbers beside the colours tell two maps apart.
  const scale = (name) => remembered(`scale ${state.layer} ${name}`, () => {
    let [low, high] = extremes(layers[state.layer].maps[name], name === "u_relax");
    if (!(low <= high)) return [0, 1];
    if (DIVERGING.has(name)) { high = Math.max(Math.abs(low), Math.abs(high)); low = -high; }
    if (ERRORS.has(name)) low = 0;
    return high > low ? [low, high] : [low, low + 1e-6];
  });
  const sorted = (at, name) => remembered(`sorted ${at} ${name}`, () => layers[at].maps[name].filter((v) => !Number.isNaN(v)).sort());

  function table(name) {
    return remembered(`colours ${name}`, () => {
      const key = DIVERGING.has(name) ? "diverging" : ERRORS.has(name) ? "error" : "sequential";
      const stops = data.colours[key].map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
      return Array.from({ length: 256 }, (_, i) => {
        const at = (i / 255) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), share = at - low;
        return stops[low].map((c, j) => c * (1 - share) + stops[low + 1][j] * share);
      });
    });
  }

  const state = { layer: 0, map: "centred", share: 0.2, opacity: 0.7, fade: false, frame: null, band: null, position: 0, part: "original" };
  const picture = $("picture"), plot = $("plot"), head = $("head"), cross = $("cross");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

  function threshold() {
    const values = sorted(state.layer, state.map);
    if (!values.length || state.share >= 1) return -Infinity;
    const at = (values.length - 1) * (1 - state.share), low = Math.floor(at);
    return values[low] + (at - low) * (values[Math.min(low + 1, values.length - 1)] - values[low]);
  }

  function imageOf(paint) {
    const canvas = document.createElement("canvas");
    canvas.width = frames; canvas.height = bands;
    const context = canvas.getContext("2d"), image = context.createImageData(frames, bands);
    for (let frame = 0, i = 0; frame < frames; frame++)
      for (let band = 0; band < bands; band++, i++) paint(image.data, 4 * ((bands - 1 - band) * frames + frame), i);
    context.putImageData(image, 0, 0);
    return canvas;
  }
  const background = () => remembered(`background ${dark.matches}`, () => {
    const [low, high] = extremes(spectrogram, false), spread = high - low || 1;
    return imageOf((pixels, at, i) => {
      const loud = (spectrogram[i] - low) / spread, grey = 255 * (dark.matches ? 0.08 + 0.9 * loud : 1 - 0.9 * loud);
      pixels[at] = pixels[at + 1] = pixels[at + 2] = grey; pixels[at + 3] = 255;
    });
  });
  function overlay(least) {
    const maps = layers[state.layer].maps, values = maps[state.map], [low, high] = scale(state.map), colours = table(state.map), diverging = DIVERGING.has(state.map);
    return imageOf((pixels, at, i) => {
      const v = values[i];
      if (Number.isNaN(v) || !(v > least) || (state.map === "u_relax" && v === 0)) return;
      const colour = colours[Math.max(0, Math.min(255, Math.round((255 * (v - low)) / (high - low))))];
      const sure = state.fade ? Math.min(1, Math.abs(maps.centred[i]) / (3 * maps.standard_error[i] || 1e-12)) : 1;
      const strong = diverging ? 0.35 + (0.65 * Math.abs(v)) / high : 1; // around 0 the spectrogram is seen, not the scale's middle
      pixels[at] = colour[0]; pixels[at + 1] = colour[1]; pixels[at + 2] = colour[2]; pixels[at + 3] = 255 * state.opacity * sure * strong;
    });
  }

  const box = () => ({
    x: MARGIN.left, y: MARGIN.top,
    width: plot.clientWidth - MARGIN.left - MARGIN.right, height: plot.clientHeight - MARGIN.top - MARGIN.bottom,
  });
  const endS = data.start_s + frames * data.hop_s;
  const xOf = (seconds) => box().x + ((seconds - data.start_s) / (endS - data.start_s)) * box().width;
  const yOf = (band) => box().y + (1 - (band + 0.5) / bands) * box().height;

  // A line around what is shown: its shape can be seen without its colour.
  function outline(context, area, least) {
    const values = layers[state.layer].maps[state.map], w = area.width / frames, h = area.height / bands;
    const on = (frame, band) => frame >= 0 && band >= 0 && frame < frames && band < bands && values[frame * bands + band] > least;
    context.beginPath();
    for (let frame = 0; frame <= frames; frame++)
      for (let band = 0; band <= bands; band++) {
        const x = area.x + frame * w, y = area.y + area.height - band * h, here = on(frame, band);
        if (here !== on(frame - 1, band)) { context.moveTo(x, y); context.lineTo(x, y - h); }
        if (here !== on(frame, band - 1)) { context.moveTo(x, y); context.lineTo(x + w, y); }
      }
    context.stroke();
  }

  function axes(context, area, colour) {
    context.fillStyle = context.strokeStyle = colour;
    context.lineWidth = 1; context.font = "12px system-ui, sans-serif";
    context.textAlign = "right"; context.textBaseline = "middle";
    for (const [band, name] of data.ticks) {
      const y = yOf(band);
      context.fillText(name, area.x - 7, y);
      context.fillRect(area.x - 4, y, 4, 1);
    }
    context.textAlign = "center"; context.textBaseline = "top";
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
    const step = steps.find((s) => xOf(data.start_s + s) - area.x >= 55) ?? 1200;
    for (let k = Math.ceil(data.start_s / step - 1e-9); k * step <= endS + 1e-9; k++) {
      const x = xOf(k * step);
      context.fillRect(x, area.y + area.height, 1, 4);
      context.fillText((k * step).toFixed(step < 1 ? 1 : 0), Math.min(x, area.x + area.width - 8), area.y + area.height + 6);
    }
    context.fillText("time (s)", area.x + area.width / 2, area.y + area.height + 22);
    context.save();
    context.translate(11, area.y + area.height / 2); context.rotate(-Math.PI / 2);
    context.textBaseline = "middle"; context.fillText(data.band_label, 0, 0);
    context.restore();
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1, area = box(), context = picture.getContext("2d");
    picture.width = Math.round(plot.clientWidth * ratio); picture.height = Math.round(plot.clientHeight * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = false;
    const least = threshold(), colour = getComputedStyle(document.body).color;
    context.drawImage(background(), area.x, area.y, area.width, area.height);
    context.drawImage(overlay(least), area.x, area.y, area.width, area.height);
    if (state.share < 1 && state.opacity > 0 && frames * bands < 200000) {
      context.lineWidth = 1; context.strokeStyle = colour;
      outline(context, area, least);
    }
    axes(context, area, colour);
    legend(least);
    place();
  }

  function number(value) {
    if (Number.isNaN(value)) return "not explained";
    return value.toPrecision(3).replace("-", MINUS);
  }
  function legend(least) {
    const [low, high] = scale(state.map), colours = table(state.map), context = $("bar").getContext("2d");
    colours.forEach((c, i) => { context.fillStyle = `rgb(${c.map(Math.round).join(",")})`; context.fillRect(i, 0, 1, 12); });
    $("bar-name").textContent = data.map_names[state.map];
    $("low").textContent = number(low); $("high").textContent = number(high);
    $("share-text").textContent = `${Math.round(100 * state.share)} %` + (Number.isFinite(least) ? `, above ${number(least)}` : "");
    $("opacity-text").textContent = `${Math.round(100 * state.opacity)} %`;
    $("layer-note").textContent = `Colours span this map's own range. ${layers[state.layer].note}`;
  }

  function frequency(band) {
    if (!data.centres_hz) return `${data.band_label} ${band}`;
    const hz = data.centres_hz[band];
    return hz < 1000 ? `${Math.round(hz)} Hz` : `${(hz / 1000).toFixed(2)} kHz`;
  }
  function readout(aloud) {
    if (state.frame === null) return;
    const i = state.frame * bands + state.band, maps = layers[state.layer].maps, time = data.first_s + state.frame * data.hop_s;
    const error = ERRORS.has(state.map) ? "" : ` ${PLUS_MINUS} ${number(maps.standard_error[i])}`;
    const value = Number.isNaN(maps[state.map][i]) ? "not explained" : number(maps[state.map][i]) + error;
    const text = `${time.toFixed(3)} s, ${frequency(state.band)}: ${data.map_names[state.map]} ${value}; spectrogram ${number(spectrogram[i])}`;
    $("readout").textContent = text;
    if (aloud) $("spoken").textContent = text;
    place();
  }

  function place() {
    const area = box();
    head.hidden = !players.length;
    head.style.top = `${area.y}px`; head.style.height = `${area.height}px`;
    head.style.left = `${Math.min(xOf(state.position), area.x + area.width) - 1}px`;
    cross.hidden = state.frame === null;
    if (state.frame !== null) {
      cross.style.left = `${xOf(data.start_s + (state.frame + 0.5) * data.hop_s)}px`;
      cross.style.top = `${yOf(state.band)}px`;
    }
  }

  // Players: one at a time, all at one position; those of the chosen layer are shown.
  const players = [...document.querySelectorAll("audio")];
  const layerOf = (audio) => audio.closest("figure").dataset.layer;
  const current = () => players.find((a) => a.dataset.part === state.part && [undefined, String(state.layer)].includes(layerOf(a)));
  function follow() {
    const playing = players.find((a) => !a.paused);
    if (!playing) return;
    state.position = playing.currentTime;
    place();
    requestAnimationFrame(follow);
  }
  for (const audio of players) {
    audio.addEventListener("play", () => {
      for (const other of players) if (other !== audio) other.pause();
      state.part = audio.dataset.part;
      if (Math.abs(audio.currentTime - state.position) > 0.05 && state.position < audio.duration - 0.05) audio.currentTime = state.position;
      requestAnimationFrame(follow);
    });
    audio.addEventListener("seeking", () => { if (audio === current()) { state.position = audio.currentTime; place(); } });
    audio.addEventListener("ended", () => { state.position = 0; place(); });
  }
  function seek(seconds) {
    state.position = Math.max(0, seconds);
    const audio = current();
    if (audio) audio.currentTime = state.position;
    place();
  }
  function choose(layer) {
    const before = current(), playing = before && !before.paused;
    state.layer = layer;
    for (const audio of players) if (layerOf(audio) !== undefined) audio.closest("figure").hidden = layerOf(audio) !== String(layer);
    const after = current();
    if (after !== before && playing) { before.pause(); after.play(); }
  }

  $("controls").addEventListener("input", () => {
    state.map = chosen("map"); state.share = $("share").value / 100; state.opacity = $("opacity").value / 100; state.fade = $("fade").checked;
    const layer = layers.findIndex((l) => l.strategy === chosen("strategy") && l.fill === chosen("fill"));
    if (layer !== state.layer) choose(layer);
    draw();
    readout(false);
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());

  function point(event) {
    const rect = plot.getBoundingClientRect(), area = box();
    const x = (event.clientX - rect.left - area.x) / area.width, y = 1 - (event.clientY - rect.top - area.y) / area.height;
    if (x < 0 || x >= 1 || y < 0 || y >= 1) return false;
    state.frame = Math.floor(x * frames); state.band = Math.floor(y * bands);
    readout(false);
    return true;
  }
  plot.addEventListener("pointermove", point);
  plot.addEventListener("click", (event) => { if (point(event)) seek(data.start_s + state.frame * data.hop_s); });
  plot.addEventListener("keydown", (event) => {
    const by = event.shiftKey ? 10 : 1, moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by], Home: [-Infinity, 0], End: [Infinity, 0] };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === " ") {
      const audio = current();
      if (!audio) return;
      if (audio.paused) { if (state.frame !== null) seek(data.start_s + state.frame * data.hop_s); audio.play(); } else audio.pause();
    } else if (event.key in moves) {
      const [dx, dy] = moves[event.key], clip = (v, n) => Math.max(0, Math.min(n - 1, v));
      [state.frame, state.band] = state.frame === null ? [0, Math.floor(bands / 2)] : [clip(state.frame + dx, frames), clip(state.band + dy, bands)];
      readout(true);
      cross.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else return;
    event.preventDefault();
  });

  plot.style.width = `max(100%, ${Math.min(8000, 90 * data.examples)}px)`;
  dark.addEventListener("change", draw);
  new ResizeObserver(draw).observe(plot);
})();

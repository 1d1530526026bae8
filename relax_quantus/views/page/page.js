// The page: state, the explained recording's picture, its switches, pointer and keys; then the recordings beside it.
const DIVERGING = new Set(["centred", "cell_effects"]);
const ERRORS = new Set(["uncertainty", "standard_error", "centred_standard_error"]);
const bands = data.bands, frames = data.frames, perExample = data.frames_per_example * bands;
const spectrogram = decode(data.spectrogram);
const main = { frames, bands, start_s: data.start_s, hop_s: data.hop_s, values: spectrogram };
const layers = data.layers.map((layer) => {
  const maps = {};
  for (const [name, packed] of Object.entries(layer.maps)) maps[name] = decode(packed);
  maps.u_relax = maps.importance.map((v, i) => (maps.uncertainty[i] <= layer.median_uncertainty[Math.floor(i / perExample)] ? v : 0));
  return { ...layer, maps };
});
const state = { layer: 0, map: "centred", fraction: data.fraction, beyond: true, opacity: 0.7, fade: false, frame: null, band: null };
const picture = $("picture"), plot = $("plot"), head = $("head"), cross = $("cross");
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

const cache = new Map();
function remembered(key, make) {
  if (!cache.has(key)) cache.set(key, make());
  return cache.get(key);
}
// A map's own scale, so that a faint one can be read; the numbers beside the colours tell two maps apart.
const scale = (name) => remembered(`scale ${state.layer} ${name}`, () => {
  let [low, high] = extremes(layers[state.layer].maps[name], name === "u_relax");
  if (!(low <= high)) return [0, 1];
  if (DIVERGING.has(name)) { high = Math.max(Math.abs(low), Math.abs(high)); low = -high; }
  if (ERRORS.has(name)) low = 0;
  return high > low ? [low, high] : [low, low + 1e-6];
});
const table = (name) => remembered(`colours ${name}`, () =>
  colourTable(data.colours[DIVERGING.has(name) ? "diverging" : ERRORS.has(name) ? "error" : "sequential"]));

// What is shown of any map: bins whose centred importance is above a fraction of the largest that chance does not draw, and beyond chance.
const largest = () => layers[state.layer].largest ?? (beyond() || !chanceKnown() ? NaN : scale("centred")[1]);
const threshold = () => (state.fraction > 0 ? state.fraction * largest() : -Infinity);
const chanceKnown = () => layers[state.layer].least_z !== null;
const beyond = () => state.beyond && chanceKnown();
function shown(i, least) {
  const { maps, least_z } = layers[state.layer];
  if (state.fraction > 0 && !(maps.centred[i] > least)) return false;
  return !beyond() || Math.abs(maps.z[i]) > least_z;
}

// How much of a bin is drawn where what is unsure fades: nothing of what has an unknown error.
function surely(i) {
  const { maps, sure } = layers[state.layer], error = maps.centred_standard_error[i];
  return Number.isNaN(error) ? 0 : Math.min(1, Math.abs(maps.centred[i]) / (sure * error || 1e-12));
}

const background = () => remembered(`background ${dark.matches}`, () => greyImage(main));
function overlay(least) {
  const maps = layers[state.layer].maps, values = maps[state.map], [low, high] = scale(state.map), colours = table(state.map), diverging = DIVERGING.has(state.map);
  return imageOf(frames, bands, (pixels, at, i) => {
    const v = values[i];
    if (Number.isNaN(v) || !shown(i, least) || (state.map === "u_relax" && v === 0)) return;
    const colour = colours[Math.max(0, Math.min(255, Math.round((255 * (v - low)) / (high - low))))];
    const sure = state.fade ? surely(i) : 1;
    const strong = diverging ? 0.35 + (0.65 * Math.abs(v)) / high : 1; // around 0 the spectrogram is seen, not the scale's middle
    pixels[at] = colour[0]; pixels[at + 1] = colour[1]; pixels[at + 2] = colour[2]; pixels[at + 3] = 255 * state.opacity * sure * strong;
  });
}

// A line around what is shown beyond chance: its shape can be seen without its colour.
function outline(context, area, least) {
  const w = area.width / frames, h = area.height / bands;
  const on = (frame, band) => frame >= 0 && band >= 0 && frame < frames && band < bands && shown(frame * bands + band, least);
  context.lineWidth = 1; context.strokeStyle = getComputedStyle(document.body).color;
  context.beginPath();
  for (let frame = 0; frame <= frames; frame++)
    for (let band = 0; band <= bands; band++) {
      const x = area.x + frame * w, y = area.y + area.height - band * h, here = on(frame, band);
      if (here !== on(frame - 1, band)) { context.moveTo(x, y); context.lineTo(x, y - h); }
      if (here !== on(frame, band - 1)) { context.moveTo(x, y); context.lineTo(x + w, y); }
    }
  context.stroke();
}

function draw() {
  const context = cleared(picture, plot), area = areaOf(plot), least = threshold();
  context.drawImage(background(), area.x, area.y, area.width, area.height);
  context.drawImage(overlay(least), area.x, area.y, area.width, area.height);
  if (beyond() && state.opacity > 0 && frames * bands < 200000) outline(context, area, least);
  axes(context, main, area);
  legend(least);
  place();
}

function legend(least) {
  const [low, high] = scale(state.map), context = $("bar").getContext("2d");
  table(state.map).forEach((c, i) => { context.fillStyle = `rgb(${c.map(Math.round).join(",")})`; context.fillRect(i, 0, 1, 12); });
  $("bar-name").textContent = data.map_names[state.map];
  $("low").textContent = number(low); $("high").textContent = number(high);
  $("fraction-text").textContent = `${Math.round(100 * state.fraction)} %` + " of the largest" + (Number.isFinite(least) ? `, ${number(least)}, on` : " on");
  $("beyond").disabled = !chanceKnown();
  $("verdict").textContent = sentence(layers[state.layer].verdict); $("verdict").hidden = !layers[state.layer].verdict;
  $("opacity-text").textContent = `${Math.round(100 * state.opacity)} %`;
  $("hint").textContent = DIVERGING.has(state.map) ? $("hint").dataset.text : "";
  $("layer-note").textContent = `Colours span this map's own range. ${layers[state.layer].note}`;
}

function readout(aloud) {
  if (state.frame === null) return;
  const i = state.frame * bands + state.band, maps = layers[state.layer].maps, time = data.first_s + state.frame * data.hop_s;
  const own = state.map === "centred" ? maps.centred_standard_error[i] : state.map === "importance" ? maps.standard_error[i] : null;
  const error = own === null ? "" : Number.isNaN(own) ? ", error unknown" : ` ${PLUS_MINUS} ${number(own)}`;
  const given = ERRORS.has(state.map) && !Number.isNaN(maps.importance[i]) ? "unknown" : "not explained";
  const z = state.map === "centred" && !Number.isNaN(maps.z[i]) ? `, z ${number(maps.z[i])}` : "";
  const value = Number.isNaN(maps[state.map][i]) ? given : number(maps[state.map][i]) + error + z;
  const when = data.in_seconds ? `${time.toFixed(3)} s` : `frame ${state.frame}`;
  const text = `${when}, ${frequency(state.band)}: ${data.map_names[state.map]} ${value}; spectrogram ${number(spectrogram[i])}`;
  $("readout").textContent = text;
  if (aloud) $("spoken").textContent = text;
  place();
}

function place() {
  const area = areaOf(plot);
  head.hidden = !players.size;
  putHead(head, main, area, playing.position);
  cross.hidden = state.frame === null;
  if (state.frame !== null) {
    cross.style.left = `${xOf(main, area, data.start_s + (state.frame + 0.5) * data.hop_s)}px`;
    cross.style.top = `${yOf(main, area, state.band)}px`;
  }
}
playing.moved = place;
playing.changed = () => {
  const from = `effects from ${Math.round(100 * data.heard.levels[playing.level])} % of the largest on`;
  $("kept-from").textContent = layers[playing.layer].largest === null ? "nothing stands out" : from;
};

$("controls").addEventListener("input", () => {
  state.map = chosen("map"); state.fraction = $("fraction").value / 100; state.beyond = $("beyond").checked; state.opacity = $("opacity").value / 100; state.fade = $("fade").checked;
  state.layer = layers.findIndex((l) => l.strategy === chosen("strategy") && l.fill === chosen("fill"));
  hear(state.layer, state.fraction);
  draw();
  readout(false);
});
$("controls").addEventListener("submit", (event) => event.preventDefault());

function point(event) {
  const rect = plot.getBoundingClientRect(), area = areaOf(plot);
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

// The recordings beside it: a second is as wide as above, as far as there is room.
const beside = [...document.querySelectorAll(".beside-plot")].map((element, i) => {
  const shown = { ...data.beside[i], values: decode(data.beside[i].spectrogram) }, audio = apart[i], mark = element.querySelector(".head");
  const at = (seconds) => putHead(mark, shown, areaOf(element), seconds);
  const show = () => {
    element.style.width = `min(100%, ${MARGIN.left + MARGIN.right + (areaOf(plot).width * (endOf(shown) - shown.start_s)) / (endOf(main) - main.start_s)}px)`;
    const context = cleared(element.querySelector("canvas"), element), area = areaOf(element);
    context.drawImage(remembered(`beside ${i} ${dark.matches}`, () => greyImage(shown)), area.x, area.y, area.width, area.height);
    axes(context, shown, area);
    at(audio.currentTime);
  };
  element.addEventListener("click", (event) => {
    const area = areaOf(element), x = (event.clientX - element.getBoundingClientRect().left - area.x) / area.width;
    if (x >= 0 && x < 1) audio.currentTime = shown.start_s + x * (endOf(shown) - shown.start_s);
  });
  audio.addEventListener("play", () => { alone(audio); follow(audio, at); });
  audio.addEventListener("seeking", () => at(audio.currentTime));
  return show;
});

if (heard && $("kept-from")) playing.changed();
plot.style.width = `max(100%, ${Math.min(8000, 90 * data.examples)}px)`;
const drawAll = () => { draw(); for (const show of beside) show(); };
dark.addEventListener("change", drawAll);
new ResizeObserver(drawAll).observe(plot);

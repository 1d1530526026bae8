"use strict";
// Numbers as the page carries them, and pictures of them with axes; keeps no state. sound.js and page.js follow in the same script.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const UNKNOWN = 65535, MARGIN = { left: 58, right: 10, top: 8, bottom: 38 };
const MINUS = "\u2212", PLUS_MINUS = "\u00b1";
const dark = matchMedia("(prefers-color-scheme: dark)");

// Values, as they were before they became 16 bits: index frame * bands + band; NaN where there is no explanation.
function decode(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
  const codes = new Uint16Array(bytes.buffer), step = (packed.high - packed.low) / (UNKNOWN - 1);
  return Float32Array.from(codes, (code) => (code === UNKNOWN ? NaN : packed.low + code * step));
}
function extremes(values, skipZero) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (!Number.isNaN(v) && !(skipZero && v === 0)) { low = Math.min(low, v); high = Math.max(high, v); }
  return [low, high];
}
function colourTable(hexes) {
  const stops = hexes.map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), share = at - low;
    return stops[low].map((c, j) => c * (1 - share) + stops[low + 1][j] * share);
  });
}

// One pixel a bin, painted by paint(pixels, where, index of the value).
function imageOf(frames, bands, paint) {
  const canvas = document.createElement("canvas");
  canvas.width = frames; canvas.height = bands;
  const context = canvas.getContext("2d"), image = context.createImageData(frames, bands);
  for (let frame = 0, i = 0; frame < frames; frame++)
    for (let band = 0; band < bands; band++, i++) paint(image.data, 4 * ((bands - 1 - band) * frames + frame), i);
  context.putImageData(image, 0, 0);
  return canvas;
}
// A spectrogram in grey, loud in the page's text colour.
function greyImage(shown) {
  const [low, high] = extremes(shown.values, false), spread = high - low || 1;
  return imageOf(shown.frames, shown.bands, (pixels, at, i) => {
    const loud = (shown.values[i] - low) / spread, grey = 255 * (dark.matches ? 0.08 + 0.9 * loud : 1 - 0.9 * loud);
    pixels[at] = pixels[at + 1] = pixels[at + 2] = grey; pixels[at + 3] = 255;
  });
}

// What is drawn: frames, bands, start_s, hop_s and values, in an element that holds the canvas.
const areaOf = (element) => ({
  x: MARGIN.left, y: MARGIN.top,
  width: element.clientWidth - MARGIN.left - MARGIN.right, height: element.clientHeight - MARGIN.top - MARGIN.bottom,
});
const endOf = (shown) => shown.start_s + shown.frames * shown.hop_s;
const xOf = (shown, area, seconds) => area.x + ((seconds - shown.start_s) / (endOf(shown) - shown.start_s)) * area.width;
const yOf = (shown, area, band) => area.y + (1 - (band + 0.5) / shown.bands) * area.height;

function cleared(canvas, element) {
  const ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d");
  canvas.width = Math.round(element.clientWidth * ratio); canvas.height = Math.round(element.clientHeight * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.imageSmoothingEnabled = false;
  return context;
}

function axes(context, shown, area) {
  const end = endOf(shown), right = area.x + area.width, bottom = area.y + area.height;
  context.fillStyle = context.strokeStyle = getComputedStyle(document.body).color;
  context.lineWidth = 1; context.font = "12px system-ui, sans-serif";
  context.textAlign = "right"; context.textBaseline = "middle";
  for (const [band, name] of data.ticks) {
    const y = yOf(shown, area, band);
    context.fillText(name, area.x - 7, y);
    context.fillRect(area.x - 4, y, 4, 1);
  }
  context.textAlign = "center"; context.textBaseline = "top";
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
  const step = steps.find((s) => xOf(shown, area, shown.start_s + s) - area.x >= 55) ?? 1200;
  for (let k = Math.ceil(shown.start_s / step - 1e-9); k * step <= end + 1e-9; k++) {
    const x = xOf(shown, area, k * step);
    context.fillRect(x, bottom, 1, 4);
    context.fillText((k * step).toFixed(step < 1 ? 1 : 0), Math.min(x, right - 8), bottom + 6);
  }
  context.fillText(data.time_label, area.x + area.width / 2, bottom + 22);
  context.save();
  context.translate(11, area.y + area.height / 2); context.rotate(-Math.PI / 2);
  context.textBaseline = "middle"; context.fillText(data.band_label, 0, 0);
  context.restore();
}

// The play head stays within the picture.
function putHead(head, shown, area, seconds) {
  head.style.top = `${area.y}px`; head.style.height = `${area.height}px`;
  head.style.left = `${Math.min(xOf(shown, area, seconds), area.x + area.width) - 1}px`;
}

function number(value) {
  if (Number.isNaN(value)) return "not explained";
  return value.toPrecision(3).replace("-", MINUS);
}
const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");
function frequency(band) {
  if (!data.centres_hz) return `${data.band_label} ${band}`;
  const hz = data.centres_hz[band];
  return hz < 1000 ? `${Math.round(hz)} Hz` : `${(hz / 1000).toFixed(2)} kHz`;
}

// The players: those of the explained recording share one position and play one at a time; every other recording has its own.
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const players = new Map([...document.querySelectorAll("#players audio")].map((audio) => [audio.dataset.part, audio]));
const apart = [...document.querySelectorAll("#beside audio")];
const playing = { part: "original", position: 0, layer: 0, level: 0, moved: () => {}, changed: () => {} };
const current = () => players.get(playing.part);

// With reduced motion a play head steps twice a second instead of gliding.
function follow(audio, moved) {
  if (audio.paused) return;
  moved(audio.currentTime);
  if (calm.matches) setTimeout(() => follow(audio, moved), 500);
  else requestAnimationFrame(() => follow(audio, moved));
}
function alone(audio) {
  for (const other of [...players.values(), ...apart]) if (other !== audio) other.pause();
}
function moved(seconds) { playing.position = seconds; playing.moved(); }

for (const audio of players.values()) {
  audio.addEventListener("play", () => {
    alone(audio);
    playing.part = audio.dataset.part;
    const at = playing.position;
    if (Math.abs(audio.currentTime - at) > 0.05 && !(at >= audio.duration - 0.05)) audio.currentTime = at;
    follow(audio, moved);
  });
  audio.addEventListener("seeking", () => { if (audio === current()) moved(audio.currentTime); });
  audio.addEventListener("ended", () => moved(0));
}
function seek(seconds) {
  moved(Math.max(0, seconds));
  if (current()) current().currentTime = playing.position;
}

// The parts at every level for every layer; those that the page starts with are the players' own.
const heard = data.heard && data.heard.parts.map((layer) => layer && layer.map((both) => both ?? Object.fromEntries(
  ["kept", "removed"].map((part) => [part, players.get(part).getAttribute("src")]))));
if (heard) playing.level = data.heard.levels.indexOf(data.fraction);

// Let the players have the parts of a layer at the level nearest to a fraction of the largest effect.
function hear(layer, fraction) {
  if (!heard) return;
  const levels = data.heard.levels, far = levels.map((level) => Math.abs(level - fraction)), level = far.indexOf(Math.min(...far));
  if (layer === playing.layer && level === playing.level) return;
  playing.layer = layer; playing.level = level;
  const both = heard[layer] && heard[layer][level];
  for (const part of ["kept", "removed"]) {
    const audio = players.get(part), on = !audio.paused;
    audio.pause();
    audio.closest("figure").hidden = !both;
    if (!both) continue;
    audio.src = both[part];
    audio.currentTime = playing.position;
    if (on) audio.play().catch(() => {}); // another choice may come before it has loaded
  }
  if (!both && playing.part !== "original") playing.part = "original";
  playing.changed();
}

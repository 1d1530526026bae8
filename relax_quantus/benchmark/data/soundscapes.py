"""Make synthetic soundscapes with known truth: a call in what a recording adds to it.

The truth is where the call dominates. Third step of the benchmark's flow: a seed and an index
enter; a `Soundscape` leaves: 15 600 samples at 16 kHz (one example), the clean call in it (the
stem), its class and the truth mask. Band, duration, onset, level, room, noise, decoy and band limit
come from a stream of their own that depends on the seed and the index alone, so they are
independent of the class; clip i is the same however many clips are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from relax_quantus.base import checks
from relax_quantus.benchmark.data.degradations import DECOYS, coloured_noise, decoy, insects, low_pass, reverberate
from relax_quantus.benchmark.data.synthetic_calls import CALLS, CLASS_NAMES, SAMPLE_RATE_HZ, Band, Wave
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.frontend.log_mel import LogMelConfig

SAMPLES = LogMelConfig().example_samples
CALL_FREE = "call_free"
PEAK = 0.9
FAINT = 1e-3
"""How far above silence values that are no logarithms have to be."""


@dataclass(frozen=True)
class Nuisance:
    """Everything about a soundscape that is independent of its class, with units."""

    band: Band
    duration_s: float
    onset_s: float
    level_db: float
    decay_s: float
    wet: float
    snr_db: float
    noise_exponent: float
    low_pass_hz: float
    decoy: str
    decoy_db: float
    insects_db: float
    other_call_db: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Nuisance:
        """Draw all of it, always in the same order and number."""
        duration_s = float(rng.uniform(0.45, 0.75))
        return cls(
            band=Band(draw_centre_hz(rng), float(rng.uniform(1.1, 1.6))),
            duration_s=duration_s,
            onset_s=float(rng.uniform(0.0, SAMPLES / SAMPLE_RATE_HZ - duration_s)),
            level_db=float(rng.uniform(-30, -12)),
            decay_s=float(rng.uniform(0.05, 0.4)),
            wet=float(rng.uniform(0.0, 0.4)),
            snr_db=float(rng.uniform(8, 22)),
            noise_exponent=float(rng.uniform(0.0, 2.0)),
            low_pass_hz=float(np.exp(rng.uniform(np.log(4_000), np.log(8_000)))),
            decoy=DECOYS[int(rng.integers(len(DECOYS)))],
            decoy_db=float(rng.uniform(0.5, 3)),
            insects_db=float(rng.choice([-np.inf, rng.uniform(-22, -12)])),
            other_call_db=float(rng.choice([-np.inf, -np.inf, rng.uniform(-22, -14)])),
        )


@dataclass(frozen=True, eq=False)
class Soundscape:
    """One synthetic recording.

    Attributes
    ----------
    wave
        float32 (15 600,): exactly ``stem + rest``.
    stem
        float32 (15 600,): the call alone, with its room and band limit; zeros in a call-free clip.
    rest
        float32 (15 600,): everything else.
    label, label_name
        Class index into `CLASS_NAMES`; -1 and "call_free" without a call.
    source_group
        Unique to the soundscape.
    seed, index
        What it was made from.
    nuisance
        The draws that are independent of the class.
    """

    wave: npt.NDArray[np.float32]
    stem: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32]
    label: int
    label_name: str
    source_group: str
    seed: int
    index: int
    nuisance: Nuisance

    @cached_property
    def truth(self) -> npt.NDArray[np.bool_]:
        """Bool ``(T, F)``, true where the stem's mel magnitude exceeds the rest's and the offset.

        The offset is the front end's.
        """
        return dominates(self.stem, self.rest)


def gain(decibel: float) -> float:
    """Return the amplitude factor of a level in dB; 0 for minus infinity."""
    return float(10.0 ** (decibel / 20.0))


def placed(call: Wave, start: int) -> Wave:
    """Place `call` in a clip of silence, from sample `start`."""
    wave = np.zeros(SAMPLES)
    wave[start : start + call.size] = call[: SAMPLES - start]
    return wave


def surroundings(nuisance: Nuisance, label: int, seed: int, index: int) -> Wave:
    """Make everything but the call, at levels relative to a call of RMS 1.

    It is noise, decoy, insects and another class's fainter call.
    """
    streams = [np.random.default_rng([seed, index, 2, part]) for part in range(5)]
    start, n = round(nuisance.onset_s * SAMPLE_RATE_HZ), round(nuisance.duration_s * SAMPLE_RATE_HZ)
    rest = gain(nuisance.decoy_db) * decoy(nuisance.decoy, nuisance.band, start, start + n, SAMPLES, streams[0])
    if nuisance.insects_db > -np.inf:
        rest += gain(nuisance.insects_db) * insects(SAMPLES, streams[1])
    if nuisance.other_call_db > -np.inf and label >= 0:
        rest += gain(nuisance.other_call_db) * other_call(label, streams[2])
    rest = reverberate(rest, nuisance.decay_s, nuisance.wet, streams[3])
    return rest + gain(-nuisance.snr_db) * coloured_noise(SAMPLES, nuisance.noise_exponent, streams[4])


def other_call(label: int, rng: np.random.Generator) -> Wave:
    """Make a third of a second of another class's call, anywhere in time and band."""
    name = CLASS_NAMES[(label + int(rng.integers(1, len(CLASS_NAMES)))) % len(CLASS_NAMES)]
    call = CALLS[name](Band(draw_centre_hz(rng), 1.2), SAMPLE_RATE_HZ // 3, rng)
    return placed(call, int(rng.integers(0, SAMPLES - call.size)))


def draw_centre_hz(rng: np.random.Generator) -> float:
    """Draw the centre of a call's band, log-uniformly."""
    return float(np.exp(rng.uniform(np.log(1_200), np.log(3_000))))


def soundscape(seed: int, index: int, label: int, snr_db: float | None = None) -> Soundscape:
    """Make one soundscape.

    Parameters
    ----------
    seed, index
        Which one. Two labels at the same seed and index share every draw of `Nuisance`.
    label
        Class index into `CLASS_NAMES`, or -1 for a clip without a call.
    snr_db
        Level of the call over the noise floor, in place of the one that is drawn; all else stays
        the same.
    """
    checks.integer("seed", seed, low=0)
    checks.integer("index", index, low=0)
    checks.integer("label", label, low=-1)
    nuisance = Nuisance.draw(np.random.default_rng([seed, index, 0]))
    if snr_db is not None:
        nuisance = replace(nuisance, snr_db=checks.real("snr_db", snr_db))
    stem = np.zeros(SAMPLES)
    if label >= 0:
        rng = np.random.default_rng([seed, index, 1, label])
        call = CALLS[CLASS_NAMES[label]](nuisance.band, round(nuisance.duration_s * SAMPLE_RATE_HZ), rng)
        stem = placed(call, round(nuisance.onset_s * SAMPLE_RATE_HZ))
        stem = reverberate(stem, nuisance.decay_s, nuisance.wet, rng)
    rest = surroundings(nuisance, label, seed, index)
    stem, rest = low_pass(stem, nuisance.low_pass_hz), low_pass(rest, nuisance.low_pass_hz)
    scale = min(gain(nuisance.level_db), PEAK / np.abs(stem + rest).max())
    stem32, rest32 = (scale * stem).astype(np.float32), (scale * rest).astype(np.float32)
    name = CLASS_NAMES[label] if label >= 0 else CALL_FREE
    return Soundscape(stem32 + rest32, stem32, rest32, label, name, f"{name}_{seed}_{index}", seed, index, nuisance)


def dominates(
    stem: npt.NDArray[np.float32], rest: npt.NDArray[np.float32], front_end: FrontEnd | None = None
) -> npt.NDArray[np.bool_]:
    """Mark where the stem's magnitude exceeds the rest's and the front end's offset.

    Bool ``(T, F)``, of the first example. Where values are no logarithms of magnitudes: where the
    stem's exceed the rest's and silence's.
    """
    chosen = front_end or front_ends.log_mel()
    x, other = (chosen.examples_of(wave)[0, 0] for wave in (stem, rest))
    silence = torch.as_tensor(getattr(x, "silence", 0.0)).numpy()
    if not chosen.natural_log:
        return np.asarray((x.numpy() > other.numpy()) & (x.numpy() > silence + FAINT))
    offset = float(np.exp(silence.max()))
    stem_mel, rest_mel = ((v.exp() - offset).numpy() for v in (x, other))
    return np.asarray((stem_mel > rest_mel) & (stem_mel > offset))


def class_of(index: int, call_free_every: int = 0) -> int:
    """Return the class of the `index`-th clip of a set.

    Every `call_free_every`-th clip has no call, the others take the classes in turn.
    """
    if call_free_every and index % call_free_every == call_free_every - 1:
        return -1
    calls_before = index - (index // call_free_every if call_free_every else 0)
    return calls_before % len(CLASS_NAMES)


def soundscapes(count: int, seed: int, call_free_every: int = 0, snr_db: float | None = None) -> list[Soundscape]:
    """Make the first `count` soundscapes of a seed, classes in turn."""
    checks.integer("count", count)
    return [soundscape(seed, index, class_of(index, call_free_every), snr_db) for index in range(count)]

"""`SpectrogramMasking`: masks in time and frequency for a network that hears waveforms.

Gains ``(n, 1, T, F)`` on a grid of seconds and hertz enter together with waveforms ``(B, N)``; what
the network makes of the filtered waveforms leaves. The gains multiply the waveform's short-time
spectrum (`relax_quantus.audio.stft`), which is inverted with its own phase, so that what is masked
is sound, whatever spectrogram the network makes of it. In the flow it stands in the encoder's
place; RELAX sees an input of ones that is masked by zeros.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.audio.hiss import hiss, whole_windows
from relax_quantus.audio.stft import OVERLAP, Stft
from relax_quantus.base import checks
from relax_quantus.base.networks import exact, neutral_torch
from relax_quantus.encoders.heard import GAINS, Filter, MaskedSound, is_repeated
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError
from relax_quantus.frontend.axes import BinAxis
from relax_quantus.frontend.cells import SoundGrid
from relax_quantus.frontend.gain_bands import LEAST_SAMPLES, MAIN_LOBE_BINS, band_centres_hz, band_shares, window_for

USUAL_EXAMPLE_S = 3.0
"""Length of an example that the windows are chosen for where the network takes any."""
QUIET = 0.1
"""Quantile over time that is a band's background."""
FAINTEST_DB = -120.0
"""What `SpectrogramMasking.levels_db` says of less, digital silence included."""
FORWARD_SAMPLES = 1 << 21
"""Samples of the waveforms in a forward, 8 MiB in float32: memory does not grow with the masks."""
FILLS = ("silence", "background", "noise")
SPACES = ("stft", "input")

Image = npt.NDArray[np.float64]


class SpectrogramMasking(nn.Module):
    r"""Filter waveforms by gains on a grid of seconds and hertz, and hand them to a network.

    Explained with `RELAX` it tells when *and* at which frequencies a network of waveforms heard
    what it heard::

        spectral = SpectrogramMasking(net)
        gains = spectral.gains(waveform)
        relax = RELAX(spectral, masks="time_frequency")
        relax.attribute(gains, baselines=0.0, additional_forward_args=waveform)

    Parameters
    ----------
    net
        Waveforms ``(n, N)`` -> ``(n, D)``: a module, a method of one, or any callable. What it says
        of itself by the attributes ``sample_rate_hz``, ``example_samples``, ``max_batch``,
        ``fixed_batch`` and ``range_hz`` need not be passed.
    bands
        Number of bands F at most. They are spaced by ratios where that leaves each, from the centre
        below to the centre above, two main lobes of the window wide, and evenly below; where not so
        many fit, there are fewer, see `frequencies_hz`.
    hop_s
        Seconds from one frame to the next, a quarter of a window; None for a window of 1/128 of the
        network's example (of 3 s where it takes any length), rounded to a power of two in samples,
        but at least 64 of them.
    fill
        Which sound takes the place of what is masked: ``"silence"``; ``"background"``, a steady
        hiss with the level that each band is above for 90 % of the clip; ``"noise"``, the same with
        the fluctuations that noise has; or a waveform ``(N,)`` or ``(B, N)``, another recording. A
        hiss is drawn once, from `seed`: it is the same under all masks, and for all examples but
        for its level.
    space
        ``"stft"``: masks act on the waveform. ``"input"``: they act on the network's own
        spectrogram, between ``net.spectrogram(waveform)`` and ``net.from_spectrogram(x)``, as
        weights in whatever its units are; T and F are then its own, and the fill is the spectrogram
        of the fill's sound.
    gain
        What a mask value m stands for. ``"dB"``: the level -60 (1 - m) dB, and silence at 0.
        ``"amplitude"``: the factor m, -6 dB at m = 1/2, which hardly weakens anything in a network
        that hears levels.
    sample_rate_hz, example_samples, max_batch, fixed_batch
        As the network says, unless given: Hz; samples that each waveform must have, None for any
        number; rows of a forward at most; rows of a forward exactly, the last ones filled up with
        copies.
    range_hz
        Lowest and highest frequency that the network hears, the centres of the outermost bands; as
        the network says (from a main lobe above 0, if it says 0), else from there to half the
        sample rate.
    seed
        Seeds the hiss of ``"background"`` and ``"noise"``, in a generator of its own.

    Attributes
    ----------
    stft : Stft
        The windows.
    expansion : Tensor
        ``(F, bins)`` float64: the share of each band's gain in each bin; columns sum to 1.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        For arguments that cannot work, and ``space="input"`` of a network that does not hand out
        its spectrogram.

    Notes
    -----
    The gain of cell (t, b) of the spectrum is

    .. math:: g_{tb} = \sum_f W_{fb}\, a(m_{tf}),
        \qquad a(m) = 10^{-3 (1 - m)} \text{ for } m > 0, \quad a(0) = 0

    with W the triangles between neighbouring centres, linear in Hz, and the filtered spectrum is
    :math:`g X + (1 - g) X_\mathrm{fill}`. Frame t is the window whose middle is t hops after the
    first sample.

    **Beyond the grid's edges**: all energy belongs to the grid. The lowest band has all that is
    below its centre, the highest all that is above; windows whose middles lie beyond the waveform's
    ends go with the first and the last frame. So gains of 0 leave the fill alone, and gains of 1
    the waveform as it is.

    Cost: a transform an example; an inverse and a forward a mask. What was computed of waveforms is
    kept until others come (`forget` drops it), and rows that repeat a batch, as RELAX hands them
    over, are transformed once.

    Source: Brüsch et al., "FreqRISE", arXiv 2406.13584, 2024, mask spectra of classifiers so and
    invert them; levels in place of factors, fills that are sounds, and embeddings are this
    project's.

    Examples
    --------
    >>> net = lambda wave: wave.square().mean(1, keepdim=True)
    >>> spectral = SpectrogramMasking(net, sample_rate_hz=16_000, example_samples=16_000)
    >>> wave = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    >>> gains = spectral.gains(wave)
    >>> gains.shape
    torch.Size([2, 1, 501, 16])
    >>> bool(torch.isclose(spectral(gains, wave), net(wave)).all())
    True
    """

    fill_waveform: Tensor | None

    def __init__(
        self,
        net: Callable[..., Any],
        bands: int = 64,
        hop_s: float | None = None,
        fill: str | Tensor | npt.NDArray[Any] = "silence",
        space: str = "stft",
        gain: str = "dB",
        *,
        sample_rate_hz: float | None = None,
        example_samples: int | None = None,
        max_batch: int | None = None,
        fixed_batch: int | None = None,
        range_hz: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not callable(net):
            checks.refuse("net", "a callable (n, samples) -> (n, D)", net, "pass the network itself", ArgumentTypeError)
        self.net = net
        # a method's module follows this one's device and mode
        self.owner = None if isinstance(net, nn.Module) else _module_of(net)
        rate = _said(net, "sample_rate_hz") if sample_rate_hz is None else sample_rate_hz
        if rate is None:
            checks.refuse("sample_rate_hz", "the network's sample rate in Hz", "none", "pass sample_rate_hz=")
        self.sample_rate_hz = checks.positive("sample_rate_hz", rate)
        self.example_samples = _size("example_samples", example_samples, net, LEAST_SAMPLES)
        self.max_batch = _size("max_batch", max_batch, net)
        self.fixed_batch = _size("fixed_batch", fixed_batch, net)
        self.gain, self.space = _one_of("gain", gain, GAINS), _one_of("space", space, SPACES)
        if space == "input" and not all(callable(_said(net, name)) for name in ("spectrogram", "from_spectrogram")):
            got = f"'input' with a {type(net).__name__} that has not both"
            remedy = "mask the waveform with space='stft'"
            checks.refuse("space", "net.spectrogram(waveform) and net.from_spectrogram(x)", got, remedy)
        self.seed = checks.integer("seed", seed, low=0)
        self.stft = self._windows(hop_s)
        self._bands_hz = self._centres(checks.integer("bands", bands), range_hz)
        bins_hz = self.stft.frequencies_hz(self.sample_rate_hz).numpy()
        self.expansion = torch.from_numpy(band_shares(self._bands_hz, bins_hz))
        wave = None if isinstance(fill, str) else self._checked_fill(fill)
        self.fill = _one_of("fill", fill, FILLS) if isinstance(fill, str) else "waveform"
        self.register_buffer("fill_waveform", wave, persistent=False)
        self.last: MaskedSound | None = None
        module = _module_of(net)
        self.training = module is not None and module.training

    def _windows(self, hop_s: float | None) -> Stft:
        """Choose the windows: by their hop, or by the length of an example."""
        if hop_s is not None:
            return Stft(max(1, round(checks.positive("hop_s", hop_s) * self.sample_rate_hz)))
        usual = max(LEAST_SAMPLES, round(USUAL_EXAMPLE_S * self.sample_rate_hz))
        return Stft(window_for(self.example_samples or usual) // OVERLAP)

    def _centres(self, bands: int, range_hz: tuple[float, float] | None) -> tuple[float, ...]:
        """Place the bands between the lowest and the highest frequency that the network hears."""
        half, lobe = self.sample_rate_hz / 2, MAIN_LOBE_BINS * self.sample_rate_hz / self.stft.window_samples
        lowest = min(lobe, half / 2)
        said = _said(self.net, "range_hz") if range_hz is None else range_hz
        low, high = (lowest, half) if said is None else (float(hz) for hz in said)
        if range_hz is None and low == 0 and lowest < high:  # a ratio needs a centre above 0
            low = lowest
        if not 0 <= low < high <= half:
            rule = f"0 <= lowest < highest <= {half:g} Hz (half the sample rate)"
            checks.refuse("range_hz", rule, repr((low, high)), "change the range")
        return band_centres_hz(low, high, bands, lobe)

    def _checked_fill(self, fill: Any) -> Tensor:
        """Return the fill's waveforms ``(b, N)``."""
        wave = torch.from_numpy(np.array(fill)) if isinstance(fill, np.ndarray) else fill
        if not isinstance(wave, Tensor):
            rule = f"a name ({', '.join(FILLS)}) or a waveform"
            checks.refuse("fill", rule, type(fill).__name__, "pass one of them", ArgumentTypeError)
        wave = wave[None] if wave.ndim == 1 else wave
        return checks.finite("fill", self._checked_wave("fill", wave)).detach().clone()

    @property
    def frequencies_hz(self) -> Image:
        """Centre of each band in Hz, ``(F,)`` float64.

        With ``space="input"`` as the network's ``frequencies_hz`` says, NaN if it does not.
        """
        if self.space == "stft":
            return np.asarray(self._bands_hz)
        said = _said(self.net, "frequencies_hz")
        return np.full(self._own_size()[1], np.nan) if said is None else np.asarray(said, np.float64)

    @property
    def times_s(self) -> Image:
        """Middle of each frame in seconds, ``(T,)`` float64.

        Of waveforms as long as the network's example, or as the last that it heard, where it takes
        any length.
        """
        if self.space == "input":
            said, frames = _said(self.net, "times_s"), self._own_size()[0]
            return np.asarray(
                (np.arange(frames) + 0.5) * (self._samples() / self.sample_rate_hz / frames) if said is None else said,
                np.float64,
            )
        return np.asarray(np.arange(self.frames(self._samples())) * self.hop_s)

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next, rounded to whole samples."""
        return self.stft.hop_samples / self.sample_rate_hz

    @property
    def window_s(self) -> float:
        """Seconds that a frame sees."""
        return self.stft.window_samples / self.sample_rate_hz

    @property
    def axis(self) -> BinAxis:
        """Return what the axes of maps stand for, for pictures, sounds and pages."""
        if self.space == "input":
            times = self.times_s
            every, window = float(times[-1] - times[0]) / max(1, times.size - 1) or self.window_s, 0.0
        else:
            times, every, window = np.zeros(1), self.hop_s, self.window_s
        hz = self.frequencies_hz
        known = tuple(float(f) for f in hz) if np.isfinite(hz).all() else ()
        label = "frequency (Hz)" if known else "band"
        return BinAxis(
            every_s=every,
            size=hz.size,
            bins_hz=known,
            label=label,
            value_label="level (dB)" if self.space == "stft" else "value",
            first_s=float(times[0]),
            window_s=window,
        )

    @property
    def grid(self) -> SoundGrid:
        """Frames and bands that cells of masks are counted on (`relax_quantus.frontend.cells`)."""
        return SoundGrid.of_axis(self.axis, self.times_s.size)

    def _samples(self) -> int:
        """Samples of an example, or of the last waveforms."""
        if self.example_samples is not None:
            return self.example_samples
        if self.last is None:
            rule = "a network whose examples have one length, or waveforms that it has heard"
            checks.refuse("example_samples", rule, "None", "call gains(waveform) first, or pass example_samples=")
        return self.last.waveform.shape[1]

    def _own_size(self) -> tuple[int, int]:
        """Frames and bands of the network's own spectrogram."""
        if self.last is None:
            self.hear(torch.zeros(1, self._samples()))
        assert self.last is not None
        return self.last.content.shape[-2], self.last.content.shape[-1]

    def frames(self, samples: int) -> int:
        """Count the frames T of so many samples: one a hop, from 0 s to the end or just beyond."""
        return -(-samples // self.stft.hop_samples) + 1

    def gains(self, waveform: Tensor) -> Tensor:
        """Return the gains that change nothing, which are the input that RELAX masks.

        Parameters
        ----------
        waveform
            ``(B, N)``, floating, finite, at the network's rate.

        Returns
        -------
        Tensor
            Ones ``(B, 1, T, F)``, in the waveform's type but at least float32, on its device.

        Raises
        ------
        ShapeError, ArgumentError, ArgumentTypeError
            For anything else.
        """
        wave = checks.finite("waveform", self._checked_wave("waveform", waveform))
        return wave.new_ones(len(wave), 1, *self._grid_of(self.hear(wave)))

    def _grid_of(self, heard: MaskedSound) -> tuple[int, int]:
        """Frames and bands of the gains for what is heard."""
        if self.space == "stft":
            return self.frames(heard.waveform.shape[1]), len(self._bands_hz)
        return heard.content.shape[-2], heard.content.shape[-1]

    def levels_db(self, waveform: Tensor) -> Tensor:
        """Return the level of each frame and band, ``(B, 1, T, F)`` in dB, for pictures.

        About 0 for a sine of amplitude 1, less by what a band is wider than its main lobe. With
        ``space="input"`` the network's own spectrogram, in its own units.
        """
        content = self.hear(waveform).content
        if self.space == "input":
            return content.reshape(len(content), 1, *content.shape[-2:])
        with neutral_torch():
            power = self._band_power(content[:, 1:-1]) * (MAIN_LOBE_BINS / self.stft.window_samples) ** 2
            faintest = 10.0 ** (FAINTEST_DB / 10)
            return 10.0 * power.clamp_min(faintest).log10()[:, None]

    def forward(self, gains: Tensor, waveform: Tensor | MaskedSound) -> Tensor:
        """Run the network on filtered waveforms.

        Parameters
        ----------
        gains
            ``(n, 1, T, F)``, 1 keeps; n a multiple of B.
        waveform
            ``(n, N)``, or ``(B, N)`` or what `hear` made of it: the same batch under each of n / B
            masks, whole batch after whole batch.

        Returns
        -------
        Tensor
            ``(n, D)``; gradients flow to both.
        """
        heard = self._checked(gains, waveform)
        parts = []
        for rows in self._blocks(len(gains), heard):
            with neutral_torch(gradients=True):
                masked = heard.masked(gains, rows)
            parts.append(self._run(masked))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def filtered(self, gains: Tensor, waveform: Tensor | MaskedSound) -> Tensor:
        """Return the waveforms ``(n, N)`` that the network is given; arguments as in `forward`."""
        if self.space == "input":
            checks.refuse("space", "'stft' to hear what is masked", "'input'", "masks act on no waveform there")
        heard = self._checked(gains, waveform)
        with neutral_torch(gradients=True):
            return torch.cat([heard.masked(gains, rows) for rows in self._blocks(len(gains), heard)])

    def hear(self, waveform: Tensor | MaskedSound) -> MaskedSound:
        """Transform waveforms ``(B, N)`` and prepare their fill: what `forward` needs beside gains.

        Kept until other waveforms come, unless gradients are to flow to them.
        """
        return waveform if isinstance(waveform, MaskedSound) else self._heard(self._checked_wave("waveform", waveform))

    def _heard(self, wave: Tensor, batch: int | None = None) -> MaskedSound:
        """Transform the first `batch` rows, which others repeat, or recall what they gave."""
        if wave.requires_grad and torch.is_grad_enabled():
            with neutral_torch(gradients=True):
                return self._transformed(wave)
        batch = len(wave) if batch is None else batch
        known = self.last is not None and len(self.last) == batch and is_repeated(self.last.waveform, wave)
        # what makes the network's own spectrogram may have been trained meanwhile
        if self.last is None or not known or self.space == "input":
            with neutral_torch():
                self.last = None
                self.last = self._transformed(wave[:batch].clone())
        return self.last

    def forget(self) -> None:
        """Drop what was computed of the last waveforms."""
        self.last = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "last": None}

    def _checked(self, gains: Tensor, waveform: Tensor | MaskedSound) -> MaskedSound:
        """Return what is heard, if the gains fit it."""
        if isinstance(waveform, MaskedSound):
            heard = waveform
        else:
            wave = self._checked_wave("waveform", waveform)
            heard = self._heard(wave, self._batch(wave))
        size = self._grid_of(heard)
        fits = isinstance(gains, Tensor) and gains.ndim == 4 and gains.is_floating_point()
        if not fits or tuple(gains.shape[1:]) != (1, *size) or len(gains) % len(heard) or len(gains) == 0:
            rule = f"shape (n, 1, {size[0]}, {size[1]}), n a multiple of {len(heard)} waveforms"
            checks.refuse("gains", rule, gains, "make them with gains(waveform)", ShapeError)
        return heard

    def _batch(self, wave: Tensor) -> int:
        """Count the rows after which waveforms repeat, as they do under several masks."""
        if self.last is not None and is_repeated(self.last.waveform, wave):
            return len(self.last)
        # a fill's rows belong to the batch's
        given = 1 if self.fill_waveform is None else len(self.fill_waveform)
        sizes = (b for b in range(given, len(wave)) if len(wave) % b == 0 and given in (1, b))
        return next((b for b in sizes if is_repeated(wave[:b], wave)), len(wave))

    def _checked_wave(self, argument: str, wave: object) -> Tensor:
        """Return waveforms ``(B, N)`` in at least float32, or refuse them."""
        wave = checks.tensor(argument, wave)
        if not wave.is_floating_point():
            remedy = "scale them to [-1, 1] first"
            checks.refuse(argument, "floating-point samples", wave, remedy, ArgumentTypeError)
        if wave.ndim != 2 or len(wave) == 0:
            checks.refuse(argument, "waveforms of shape (B, samples)", wave, "add the batch axis", ShapeError)
        if self.example_samples is not None and wave.shape[1] != self.example_samples:
            rule = f"{self.example_samples} samples ({self.example_samples / self.sample_rate_hz:g} s), as the network takes"
            checks.refuse(argument, rule, wave, "cut or pad it", ShapeError)
        if wave.shape[1] < LEAST_SAMPLES:
            checks.refuse(argument, f"at least {LEAST_SAMPLES} samples", wave, "pass a longer waveform", ShapeError)
        return exact(wave)

    def _transformed(self, wave: Tensor) -> MaskedSound:
        """Transform waveforms and their fill."""
        if self.space == "input":
            sounds = wave.new_zeros(1, wave.shape[1])
            if self.fill != "silence":
                spectrum = self._fill_spectrum(wave, None if self.fill == "waveform" else self.stft.forward(wave))
                sounds = self.stft.inverse(spectrum, wave.shape[1])
            own = [_said(self.net, "spectrogram")(self._like_weights(w)) for w in (wave, sounds)]
            for made, w in zip(own, (wave, sounds), strict=True):
                if not isinstance(made, Tensor) or len(made) != len(w) or made.ndim not in (3, 4):
                    rule = f"({len(w)}, T, F) or ({len(w)}, 1, T, F) from its spectrogram"
                    checks.refuse("net", rule, made, "return the spectrogram alone", EncoderError)
            return MaskedSound(wave, own[0], own[1])
        content = self.stft.forward(wave)
        fill = None if self.fill == "silence" else self._fill_spectrum(wave, content)
        shares = self.expansion.to(wave.dtype).to(wave.device)
        return MaskedSound(wave, content, fill, Filter(self.stft, shares, self.gain))

    def _fill_spectrum(self, wave: Tensor, content: Tensor | None) -> Tensor:
        """Return the spectrum ``(B or 1, T + 2, bins)`` of what takes the place of the masked."""
        if content is None or self.fill_waveform is not None:
            other = self.fill_waveform
            if other is None or other.shape[1] != wave.shape[1] or len(other) not in (1, len(wave)):
                rule = f"a waveform of {wave.shape[1]} samples, one or {len(wave)}"
                checks.refuse("fill", rule, other, "cut or pad it", ShapeError)
            return self.stft.forward(other.to(wave))
        power = self._band_power(content[:, whole_windows(self.stft, wave.shape[1])])
        quiet = torch.cat([p.quantile(QUIET, dim=0, keepdim=True) for p in power])[:, None]
        drawn = hiss(self.stft, wave, self.seed, is_steady=self.fill == "background")
        return drawn * (quiet.sqrt() @ self.expansion.to(power.dtype).to(power.device))

    def _band_power(self, spectrum: Tensor) -> Tensor:
        """Mean power of each band's bins, ``(..., T, bins) -> (..., T, F)``."""
        power = spectrum.abs().square()
        shares = self.expansion.to(power.dtype).to(power.device)
        return power @ (shares / shares.sum(1, keepdim=True)).T

    def _blocks(self, n: int, heard: MaskedSound) -> Iterator[slice]:
        """Cut n rows into what goes through the network together: even blocks, or fixed ones."""
        size = self.fixed_batch
        if size is None:
            most = max(1, FORWARD_SAMPLES // heard.waveform.shape[1])
            most = most if self.max_batch is None else min(most, self.max_batch)
            size = -(-n // -(-n // most))
        for start in range(0, n, size):
            yield slice(start, min(start + size, n))

    def _run(self, masked: Tensor) -> Tensor:
        """Run the network; a fixed batch is filled up with copies, whose outputs are dropped."""
        count = len(masked)
        if self.fixed_batch is not None and count < self.fixed_batch:
            masked = masked[torch.arange(self.fixed_batch, device=masked.device) % count]
        net = _said(self.net, "from_spectrogram") if self.space == "input" else self.net
        h = net(self._like_weights(masked))
        if not isinstance(h, Tensor) or h.ndim == 0 or len(h) != len(masked):
            got = h if isinstance(h, Tensor) else f"a {type(h).__name__}"
            checks.refuse(
                "net", f"{len(masked)} rows for {len(masked)} waveforms", got, "return a tensor (n, D)", EncoderError
            )
        return h[:count]

    def _like_weights(self, x: Tensor) -> Tensor:
        """Bring sound to the floating type of the network's weights, if it has any."""
        module = _module_of(self.net)
        dtypes = () if module is None else (p.dtype for p in module.parameters() if p.is_floating_point())
        return x.to(next(iter(dtypes), x.dtype))


def _module_of(net: object) -> nn.Module | None:
    """Return the module that a network is, or is a method of."""
    owner = net.__self__ if isinstance(net, types.MethodType) else net
    return owner if isinstance(owner, nn.Module) else None


def _said(net: object, name: str) -> Any:
    """Return what a network, or what it is a method of, says of itself; None if nothing."""
    owner = net.__self__ if isinstance(net, types.MethodType) else net
    return getattr(owner, name, None)


def _size(name: str, value: int | None, net: object, low: int = 1) -> int | None:
    """Return a size as given or as the network says."""
    value = _said(net, name) if value is None else value
    return None if value is None else checks.integer(name, value, low=low)


def _one_of(argument: str, value: object, known: tuple[str, ...]) -> str:
    """Return a name, if it is one of those known."""
    if value not in known:
        named = {name.lower(): name for name in known}
        near = get_close_matches(str(value).lower(), named, n=1)
        remedy = f"did you mean {named[near[0]]!r}" if near else "pick one"
        checks.refuse(argument, f"one of {', '.join(known)}", repr(value), remedy)
    return str(value)

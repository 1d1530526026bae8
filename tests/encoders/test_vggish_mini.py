"""The bundled encoder: weights, refusals, folding, and embeddings that RELAX can work with."""

import hashlib
import json
from importlib import resources

import pytest
import torch

import relax_quantus as rq
from relax_quantus.encoders import vggish_mini
from relax_quantus.encoders.vggish_mini import MANIFEST, WEIGHTS, VGGishMini, fold, load_vggish_mini
from relax_quantus.errors import WeightsError
from relax_quantus.frontend.log_mel import LogMelConfig

SILENCE = LogMelConfig().silence


@pytest.fixture(scope="module")
def encoder() -> VGGishMini:
    return rq.load_encoder("vggish_mini")


def cosine_to_silence(encoder, x):
    h = encoder(torch.cat([torch.full((1, 1, 96, 64), SILENCE), x]))
    return torch.cosine_similarity(h[1:], h[:1])


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A copy of the bundled files that the loader reads instead of the real ones."""
    source = resources.files(vggish_mini.__package__)
    for name in (WEIGHTS, MANIFEST):
        (tmp_path / name).write_bytes(source.joinpath(name).read_bytes())
    monkeypatch.setattr(vggish_mini.resources, "files", lambda package: tmp_path)
    return tmp_path


def test_bundled_weights_are_small_and_named_by_the_manifest():
    source = resources.files(vggish_mini.__package__)
    blob = source.joinpath(WEIGHTS).read_bytes()
    manifest = json.loads(source.joinpath(MANIFEST).read_text())
    assert len(blob) <= 3_000_000
    assert manifest["sha256"] == hashlib.sha256(blob).hexdigest()
    assert manifest["seed"] == 0
    assert manifest["command"] == "python -m benchmarks.train_vggish_mini --data FOLDER --seed 0"


def test_the_copy_loads(home):
    assert isinstance(load_vggish_mini(), VGGishMini)


def test_changed_weights_are_refused(home):
    blob = bytearray((home / WEIGHTS).read_bytes())
    blob[-1] ^= 1
    (home / WEIGHTS).write_bytes(bytes(blob))
    with pytest.raises(WeightsError, match=r"expected SHA-256 .*, got .*; install the package again"):
        load_vggish_mini()


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_missing_file_is_refused(home, name):
    (home / name).unlink()
    with pytest.raises(WeightsError, match="install the package again"):
        load_vggish_mini()


def test_loading_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    rq.load_encoder("vggish_mini")
    assert torch.equal(torch.get_rng_state(), state)


def test_loads_in_eval_mode_without_batch_norm(encoder):
    assert not encoder.training
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in encoder.modules())


@pytest.mark.parametrize("kind", ["silence", "noise", "loud"])
def test_embeddings_are_finite_and_not_zero(encoder, kind):
    generator = torch.Generator().manual_seed(0)
    x = {
        "silence": torch.full((2, 1, 96, 64), SILENCE),
        "noise": rq.LogMel()(0.1 * torch.randn(2, 15_600, generator=generator)),
        "loud": torch.full((2, 1, 96, 64), 5.0),
    }[kind]
    with torch.no_grad():
        h = encoder(x)
    assert h.shape == (2, 128)
    assert h.isfinite().all()
    assert (h.norm(dim=1) > 0.1).all()


def test_embedding_does_not_depend_on_neighbours(encoder):
    x = torch.randn(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder(x)[2:3], encoder(x[2:3]), atol=1e-4, rtol=1e-4)


def test_folding_changes_nothing():
    model = VGGishMini(batch_norm=True)
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                value.data = 0.5 + torch.rand(value.shape, generator=generator)
    x = torch.randn(3, 1, 96, 64, generator=generator)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(fold(model)(x), model(x), atol=1e-4, rtol=1e-4)


def test_calls_stand_apart_from_silence_and_from_other_classes(encoder, animal_sounds):
    examples = {}
    for label in ("bird", "cat", "dog"):
        files = sorted((animal_sounds / label).iterdir())[:10]
        loudest = [x[x.flatten(1).mean(1).argmax()][None] for x in map(rq.load_examples, files)]
        examples[label] = torch.cat(loudest)
    x = torch.cat(list(examples.values()))
    with torch.no_grad():
        to_silence = cosine_to_silence(encoder, x)
        h = torch.nn.functional.normalize(encoder(x))
    cosine = h @ h.T
    label = torch.arange(3).repeat_interleave(10)
    same = (label[:, None] == label[None]) & ~torch.eye(30, dtype=torch.bool)
    assert to_silence.median() < 0.6
    assert cosine[same].mean() > cosine[label[:, None] != label[None]].mean() + 0.2

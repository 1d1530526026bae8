"""The real loading code of the VGGish encoder, with right-shaped
random weights in place of the 288 MB file, and a server on 127.0.0.1.
"""

from __future__ import annotations

import hashlib
import http.server
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import relax_quantus as rq
from relax_quantus.encoders import vggish
from relax_quantus.encoders.vggish import VGGish, load_vggish
from relax_quantus.errors import ArgumentError, ArgumentTypeError, MissingDependencyError, ShapeError, WeightsError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights of the right shapes, scaled so
    that the embedding is neither zero nor saturated.
    """
    with torch.device("meta"):
        layout = VGGish().state_dict()
    generator = torch.Generator().manual_seed(0)
    made = {}
    for key, like in layout.items():
        fan_in = like[0].numel()
        made[key] = torch.empty(like.shape).uniform_(-1, 1, generator=generator) * (6 / max(fan_in, 1)) ** 0.5
        if key.endswith("bias"):
            made[key].mul_(0.01)
    return made


@pytest.fixture(scope="module")
def real_size(state: State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file as large as the real one, in the format of the
    old torch that wrote the real one, named after its hash.
    """
    path = tmp_path_factory.mktemp("weights") / "vggish.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    yield rename_by_hash(path)
    for file in path.parent.iterdir():
        file.unlink()


@pytest.fixture
def small(state: State, tmp_path: Path) -> Path:
    """Right shapes in a few kilobytes: each tensor repeats one stored number."""
    path = tmp_path / "made" / "vggish.pth"
    path.parent.mkdir()
    torch.save({key: torch.tensor(0.001).expand(value.shape) for key, value in state.items()}, path)
    return rename_by_hash(path)


def rename_by_hash(path: Path) -> Path:
    return path.rename(path.with_name(f"vggish-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub cache; returns its folder of checkpoints, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "home" / "hub" / "checkpoints"


# ------------------------------------------------------------------------------------------ network


def test_real_size_file_gives_torchvggishs_embedding(state: State, real_size: Path) -> None:
    from torchvggish import torchvggish

    encoder = rq.load_encoder("vggish", weights=real_size)
    assert not encoder.training
    with torch.device("meta"):
        network = torchvggish._vgg(postprocess=False)
    network.load_state_dict(state, assign=True)
    x = torch.randn(3, 1, 96, 64, generator=torch.Generator().manual_seed(1)) - 3
    with torch.no_grad():
        h, wanted = encoder(x), network(x)
        assert h.shape == (3, 128)
        assert h.gt(0.1).float().mean() > 0.2
        torch.testing.assert_close(h, wanted, rtol=1e-4, atol=1e-4)
        one = encoder(x[:1].to(memory_format=torch.channels_last))
        torch.testing.assert_close(one, wanted[:1], rtol=1e-3, atol=1e-3)


def test_layers_are_out_of_place_and_the_encoder_pickles(small: Path) -> None:
    encoder = load_vggish(small)
    assert sum(p.numel() for p in encoder.parameters()) == 72_141_184
    assert not any(getattr(m, "inplace", False) for m in encoder.modules())
    with torch.device("meta"):
        like = VGGish()
    assert type(pickle.loads(pickle.dumps(like))) is VGGish


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_loaded_parameters_are_ordinary_ones(tmp_path: Path, state: State, dtype: torch.dtype) -> None:
    torch.save(
        {key: torch.tensor(0.5, dtype=dtype).expand(value.shape) for key, value in state.items()}, tmp_path / "mine.pth"
    )
    before = torch.get_rng_state()
    parameters = list(load_vggish(tmp_path / "mine.pth").parameters())
    assert all(p.is_contiguous() and p.dtype == torch.float32 and p.requires_grad for p in parameters)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shape", [(96, 64), (1, 96, 64), (2, 1, 64, 96), (2, 2, 96, 64)])
def test_inputs_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        encoder = VGGish()
    with pytest.raises(ShapeError, match=r"x: expected log-mel examples of shape \(n, 1, 96, 64\)"):
        encoder(torch.zeros(shape))


def test_loading_takes_neither_numba_nor_resampy_along(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvggish"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("resampy", "numba"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    assert isinstance(load_vggish(small), VGGish)
    assert "torchvggish" not in sys.modules


def test_without_torchvggish_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vggish.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        MissingDependencyError,
        match=r"^encoder 'vggish': expected torchvggish, got no such package; pip install \"relax-quantus\[vggish\]\"\.$",
    ):
        rq.load_encoder("vggish")


# ------------------------------------------------------------------------------------ checked files


def test_hash_in_the_name_is_checked(small: Path) -> None:
    load_vggish(str(small))
    wrong = small.rename(small.with_name("vggish-00000000.pth"))
    with pytest.raises(
        WeightsError, match=r"vggish-00000000\.pth: expected SHA-256 00000000 \(from its name\), got [0-9a-f]{64}; pass"
    ):
        load_vggish(wrong)


def test_sha256_is_checked_and_outranks_the_name(small: Path) -> None:
    digest = hashlib.sha256(small.read_bytes()).hexdigest()
    renamed = small.rename(small.with_name("vggish-00000000.pth"))
    load_vggish(renamed, sha256=digest.upper())
    with pytest.raises(WeightsError, match=f"expected SHA-256 {'0' * 64}, got {digest}"):
        load_vggish(renamed, sha256="0" * 64)
    with pytest.raises(ArgumentError, match="sha256: expected 64 hexadecimal digits, got '10086976'"):
        load_vggish(renamed, sha256="10086976")


def test_file_without_a_hash_is_checked_for_its_layout(small: Path, state: State) -> None:
    plain = small.rename(small.with_name("mine.pth"))
    load_vggish(plain)
    saved = torch.load(plain)
    for change, said in (
        (
            {"features.0.weight": torch.zeros(64, 1, 5, 5)},
            r"features\.0\.weight of shape \(64, 1, 3, 3\), got \(64, 1, 5, 5\)",
        ),
        ({"pproc.pca_means": torch.zeros(1)}, r"pproc\.pca_means of shape nothing, got \(1,\)"),
    ):
        torch.save(saved | change, plain)
        with pytest.raises(
            WeightsError, match=f"mine.pth: expected torchvggish's weights, {said}; pass a VGGish state dict"
        ):
            load_vggish(plain)
    torch.save({"weight": torch.zeros(1)}, plain)
    with pytest.raises(WeightsError, match=r"features\.0\.weight of shape .*, got nothing"):
        load_vggish(plain)


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    path, trace = tmp_path / "mine.pth", tmp_path / "it ran"
    torch.save({"features.0.weight": Payload(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        WeightsError,
        match=r"expected a state dict that torch\.load reads with weights_only=True, got a file it refuses",
    ) as e:
        load_vggish(path)
    assert not trace.exists()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"<html>not found</html>"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="got a file it refuses"):
        load_vggish(tmp_path / "mine.pth")


def test_whole_module_or_list_is_refused(tmp_path: Path) -> None:
    for content in ([torch.zeros(1)], {"features": {"weight": torch.zeros(1)}}):
        torch.save(content, tmp_path / "mine.pth")
        with pytest.raises(WeightsError, match=r"got a (list|dict) of other things; save model.state_dict"):
            load_vggish(tmp_path / "mine.pth")


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights=.*gone\.pth: expected a file of weights, got no such file"):
        rq.load_encoder("vggish", weights=tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match="got a folder"):
        rq.load_encoder("vggish", weights=tmp_path)


def test_unknown_parameter_and_name_suggest_the_nearest() -> None:
    with pytest.raises(ArgumentTypeError, match=r"weight: .*did you mean 'weights'"):
        rq.load_encoder("vggish", weight="a.pth")
    with pytest.raises(ValueError, match=r"encoder: .*'vgish'; did you mean 'vggish'"):
        rq.load_encoder("vgish")


# ---------------------------------------------------------------------------- torch.hub and network


def test_url_is_the_installed_torchvggishs() -> None:
    assert (
        vggish.weights_url() == "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
    )


def test_cached_file_is_taken_without_network_and_checked(
    small: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(vggish, "weights_url", lambda: f"https://example.invalid/{small.name}")
    hub.mkdir(parents=True)
    cached = small.rename(hub / small.name)
    assert isinstance(rq.load_encoder("vggish"), VGGish)
    with cached.open("ab") as file:
        file.write(b"!")
    with pytest.raises(WeightsError, match=r"from its name\), got .*; delete it, and it will be fetched anew"):
        rq.load_encoder("vggish")


Handle = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Handle, str], None]]:
    """Answer GET requests on 127.0.0.1 with a function and
    make the encoder ask there for a file of the given name.
    """
    servers = []

    def start(handle: Handle, name: str) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                handle(self)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            vggish, "weights_url", lambda: f"http://127.0.0.1:{server.server_port}/release/{name}?raw=1"
        )

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(content: bytes, sent: float = 1.0) -> Handle:
    """Announce all of `content`, send the first share of it, and hang up."""

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: int(len(content) * sent)])
        request.wfile.flush()
        request.close_connection = True

    return handle


def test_missing_file_is_fetched_once(small: Path, hub: Path, serve: Callable[[Handle, str], None]) -> None:
    asked = []
    content = small.read_bytes()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        answer(content)(request)

    serve(handle, small.name)
    for _ in range(2):
        rq.load_encoder("vggish")
    assert asked == [f"/release/{small.name}?raw=1"]
    assert [p.name for p in hub.iterdir()] == [small.name]


def test_failed_download_leaves_nothing_and_says_what_to_do(
    small: Path, hub: Path, serve: Callable[[Handle, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def stall(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"begin")
        release.wait(20)

    monkeypatch.setattr(vggish, "STALLED_S", 0.5)
    failures: list[tuple[Handle, str]] = [
        (answer(small.read_bytes(), sent=0.5), "invalid hash value"),
        (answer(b"<html>log in first</html>"), "invalid hash value"),
        (lambda request: request.send_error(404), "HTTP Error 404"),
        (lambda request: request.connection.close(), "."),
        (stall, "timed out"),
    ]
    for handle, reason in failures:
        serve(handle, small.name)
        with pytest.raises(WeightsError) as error:
            rq.load_encoder("vggish")
        said = str(error.value)
        assert said.startswith(
            f"encoder 'vggish': expected its weights at {hub / small.name}, got no such file and no download ("
        )
        assert reason in said
        assert f"fetch {vggish.weights_url()} on a connected machine and put it there, or pass weights=PATH." in said
        assert "\n" not in said
        assert list(hub.iterdir()) == []
    release.set()


def test_without_network_or_a_writable_cache_the_error_is_the_same(
    hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(vggish, "weights_url", lambda: "http://127.0.0.1:9/vggish-10086976.pth")
    with pytest.raises(WeightsError, match=r"no download \(<urlopen error .*refused>\); fetch http://127"):
        rq.load_encoder("vggish")
    (tmp_path / "occupied").write_text("a file where the cache should be")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "occupied"))
    with pytest.raises(WeightsError, match=r"no download \(.*Not a directory.*\); fetch http://127"):
        rq.load_encoder("vggish")


def test_time_limit_of_sockets_is_put_back() -> None:
    before = socket.getdefaulttimeout()
    with vggish._give_up_when_stalled():
        assert socket.getdefaulttimeout() == (before or vggish.STALLED_S)
    assert socket.getdefaulttimeout() == before

"""The network: its presets, what it takes and refuses, embedding clips, copies, autocast and compilation."""

import copy
import io
import pickle
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import hstl_fast
from hstl_fast import HSTL, PRESETS, HSTLConfig
from hstl_fast.models import Stage
from hstl_fast.models.inputs import check_values
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers

NAMES = ("casia-b", "oumvlp", "gait3d")
each_preset = pytest.mark.parametrize("preset", NAMES)


@pytest.fixture
def model() -> HSTL:
    return narrow_model("casia-b", divisor=8).eval()


@pytest.mark.parametrize(
    ("name", "parts", "channels", "identities", "parameters"),
    [
        ("casia-b", 73, 128, 74, 4_054_378),
        ("oumvlp", 50, 256, 5153, 23_145_203),
        ("grew", 50, 256, 20000, 23_145_203),
        ("gait3d", 46, 256, 3000, 19_391_087),
    ],
)
def test_presets(name: str, parts: int, channels: int, identities: int, parameters: int) -> None:
    config = PRESETS[name]
    assert (config.parts, config.channels, config.num_classes) == (parts, channels, identities)
    with torch.device("meta"):
        built = HSTL.from_preset(name)
    assert sum(p.numel() for p in built.parameters()) - built.classifier.weight.numel() == parameters
    assert built.classifier.weight.shape == (parts, channels, identities)


def test_initialisation() -> None:
    torch.manual_seed(0)
    norm = HSTL(PRESETS["gait3d"]).norm
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.005)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert norm.bias.count_nonzero() == 0
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"one of casia-b, oumvlp, grew, gait3d, got 'casiab'; did you mean 'casia-b'\?"
    ):
        HSTL.from_preset("casiab")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": ()}, "stem must be one or more positive channel counts"),
        ({"stem": (32, 0)}, "stem must be one or more positive channel counts"),
        ({"stages": ()}, "stages must hold at least one Stage"),
        ({"stages": (Stage((40, 23), (32,)),)}, r"stages\[0\]\.split .* sum to 64, got \(40, 23\)"),
        ({"stages": (Stage((64, 0), (32,)),)}, r"stages\[0\]\.split must be positive"),
        ({"stages": (Stage((64,), ()),)}, r"stages\[0\]\.channels must be"),
        ({"pool": True}, r"stages\[0\]\.split .* sum to 32, got \(40, 24\)"),
        ({"strips": 48}, "strips must divide 64 rows, got 48"),
        ({"strips": 0}, "strips must divide 64 rows, got 0"),
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
    ],
)
def test_a_network_that_cannot_be_built(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PRESETS["casia-b"], **changes)


def test_a_name_is_no_configuration() -> None:
    with pytest.raises(TypeError, match="config must be an HSTLConfig, got str; from_preset takes a name"):
        HSTL("casia-b")


def test_a_network_of_another_shape(backend: str) -> None:
    config = HSTLConfig((4,), (Stage((64,), (4,)), Stage((60, 4), (6, 6)), Stage((1, 63), (6,))), False, 2, 3)
    out = HSTL(config).eval()(walkers(4)[None])
    assert out.embeddings.shape == (1, 1 + 1 + 1 + 2 + 2 + 2, 6)
    assert out.logits.shape == (1, 9, 3)


def clip(*shape: int, value: float = 0.5) -> Tensor:
    return torch.full(shape, value)


@pytest.mark.parametrize(
    ("silhouettes", "seq_lens", "error", "message"),
    [
        (np.zeros((1, 3, 64, 44)), None, TypeError, "silhouettes must be a tensor"),
        (clip(3, 64, 44), None, ValueError, r"silhouettes must have the shape \[N, T, 64, 44\], got \[3, 64, 44\]"),
        (clip(1, 3, 64, 64), None, ValueError, r"got \[1, 3, 64, 64\]"),
        (clip(1, 0, 64, 44), None, ValueError, r"got \[1, 0, 64, 44\]"),
        (clip(0, 3, 64, 44), None, ValueError, r"got \[0, 3, 64, 44\]"),
        (clip(1, 3, 64, 44).int(), None, TypeError, r"uint8 0\.\.255 or floating 0\.\.1, got torch\.int32"),
        (clip(1, 3, 64, 44).bool(), None, TypeError, r"uint8 0\.\.255 or floating 0\.\.1, got torch\.bool"),
        (clip(1, 3, 64, 44, value=float("nan")), None, ValueError, r"must lie in 0\.\.1 .* got NaN"),
        (clip(1, 3, 64, 44, value=255.0), None, ValueError, r"must lie in 0\.\.1 .* got values in 255\.\.255"),
        (clip(1, 3, 64, 44, value=-0.1), None, ValueError, r"must lie in 0\.\.1"),
        (clip(2, 3, 64, 44), [3, 3], ValueError, r"silhouettes must be packed as \[1, sum\(seq_lens\), 64, 44\]"),
        (clip(1, 5, 64, 44), [3, 3], ValueError, r"seq_lens must sum to"),
        (clip(1, 5, 64, 44), [5, 0], ValueError, r"seq_lens must be lengths of at least 1, got \[5, 0\]"),
        (clip(1, 5, 64, 44), [6, -1], ValueError, r"seq_lens must be lengths of at least 1, got \[6, -1\]"),
        (clip(1, 5, 64, 44), [], ValueError, r"seq_lens must be lengths of at least 1, got \[\]"),
        (clip(1, 5, 64, 44), [2.5, 2.5], TypeError, "seq_lens must hold integers"),
        (clip(1, 5, 64, 44), torch.tensor([2.0, 3.0]), TypeError, "seq_lens must be a 1-D integer tensor"),
        (clip(1, 5, 64, 44), torch.empty(2, dtype=torch.long, device="meta"), TypeError, "a tensor on meta"),
    ],
)
def test_what_the_model_refuses(
    silhouettes: Tensor, seq_lens: list[int] | None, error: type[Exception], message: str, model: HSTL
) -> None:
    with pytest.raises(error, match=message):
        model(silhouettes, seq_lens)


def test_silhouettes_may_be_bytes_or_fractions(model: HSTL, backend: str) -> None:
    clips = torch.stack([walkers(4, 1), walkers(4, 2)])
    expected = model(clips)
    assert expected.embeddings.dtype == expected.logits.dtype == torch.float32
    assert expected.embeddings.shape == (2, 73, 16)
    assert expected.logits.shape == (2, 73, 6)
    for fractions in (clips / 255, clips.double() / 255):
        assert distance(model(fractions).embeddings, expected.embeddings) <= rounding(torch.float32, NETWORK)
    packed = clips.flatten(0, 1)[None]
    for lengths in ([4, 4], (4, 4), torch.tensor([4, 4])):
        assert distance(model(packed, lengths).embeddings, expected.embeddings) <= rounding(torch.float32, NETWORK)


def test_gradients_reach_the_silhouettes(model: HSTL, backend: str) -> None:
    fractions = (walkers(3)[None] / 255).requires_grad_()
    model(fractions).embeddings.sum().backward()
    assert fractions.grad.isfinite().all()
    assert fractions.grad.count_nonzero() > 0


@each_preset
def test_feature_maps_stay_channels_last(preset: str, backend: str) -> None:
    network = narrow_model(preset, divisor=8)
    seen: list[bool] = []

    def note(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(all(x.is_contiguous(memory_format=torch.channels_last_3d) for x in (inputs[0], output)))

    layers = [*network.stem, *(layer for stage in network.stages for layer in stage), network.fta]
    for layer in layers:
        layer.register_forward_hook(note)
    network(walkers(6)[None])
    assert seen == [True] * len(layers)


class TestEmbed:
    def test_clips_of_any_form(self, model: HSTL, backend: str) -> None:
        first, second = walkers(5, 1), walkers(2, 2)
        wide = torch.nn.functional.pad(first, (10, 10), value=255)
        read_only = second.numpy().copy()
        read_only.flags.writeable = False
        expected = torch.cat([model(c[None]).embeddings for c in (first, second)]).detach()
        for pair in ([first, second], [wide, read_only], [first.numpy() / 255, second.double() / 255]):
            got = model.embed(pair)
            assert got.shape == (2, 73, 16)
            assert not got.requires_grad
            assert distance(got, expected) <= rounding(torch.float32, NETWORK)

    def test_batches_are_bounded_and_keep_the_order(self, model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
        lengths = [3, 4, 20, 1, 2, 5, 9, 1]
        clips = [walkers(t, t) for t in lengths]
        batches: list[list[int]] = []
        embeddings = HSTL._embeddings

        def note(self: HSTL, silhouettes: Tensor, lens: list[int], batch_statistics: bool) -> Tensor:
            batches.append(lens)
            return embeddings(self, silhouettes, lens, batch_statistics)

        monkeypatch.setattr(HSTL, "_embeddings", note)
        embedded = model.embed(clips, max_frames=9)
        assert batches == [[3, 4], [20], [1, 2, 5], [9], [1]]
        expected = torch.cat([model.embed([c]) for c in clips])
        assert distance(embedded, expected) <= rounding(torch.float32, NETWORK)

    def test_a_generator_is_read_as_it_is_needed(self, model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
        events: list[str] = []
        embeddings = HSTL._embeddings

        def note(self: HSTL, silhouettes: Tensor, lens: list[int], batch_statistics: bool) -> Tensor:
            events.append("embed")
            return embeddings(self, silhouettes, lens, batch_statistics)

        def clips() -> Iterator[Tensor]:
            for i in range(3):
                events.append("read")
                yield walkers(4, i)

        monkeypatch.setattr(HSTL, "_embeddings", note)
        assert model.embed(clips(), max_frames=4).shape[0] == 3
        assert events == ["read", "read", "embed", "read", "embed", "embed"]

    def test_training_mode_and_statistics_are_left_alone(self, model: HSTL) -> None:
        expected = model.embed([walkers(3)])
        model.train()
        before = copy.deepcopy(model.state_dict())
        assert torch.equal(model.embed([walkers(3)]), expected)
        assert model.training
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_what_it_refuses(self, model: HSTL) -> None:
        good = walkers(3)
        for clips, error, message in [
            ([], ValueError, "clips must hold at least one clip, got none"),
            ([good, good[0]], ValueError, r"clips\[1\] must have the shape \[T, 64, 44 or 64\] .* got \[64, 44\]"),
            ([good, good[:0]], ValueError, r"clips\[1\] must have the shape .* got \[0, 64, 44\]"),
            ([good[:, :, :40]], ValueError, r"clips\[0\] must have the shape .* got \[3, 64, 40\]"),
            ([good, "walk.npy"], TypeError, r"clips\[1\] must be an array or a tensor .* got str"),
            ([good.numpy().astype(object)], TypeError, r"clips\[0\] must be uint8 .* got an array of object"),
            ([good.int()], TypeError, r"clips\[0\] must be uint8 .* got torch.int32"),
            ([good, good, good * float("nan")], ValueError, r"clips\[2\] of torch.float32 .* got NaN"),
            ([good.float()], ValueError, r"clips\[0\] of torch.float32 must lie in 0\.\.1 .* got values in 0\.\.255"),
        ]:
            with pytest.raises(error, match=message):
                model.embed(clips)
        with pytest.raises(ValueError, match="max_frames must be a positive integer, got 0"):
            model.embed([good], max_frames=0)


def same_embeddings(first: HSTL, second: HSTL) -> bool:
    return torch.equal(first.embed([walkers(4)]), second.embed([walkers(4)]))


def test_copies(model: HSTL, backend: str) -> None:
    model.embed([walkers(4)])
    assert same_embeddings(model, copy.deepcopy(model))
    assert same_embeddings(model, pickle.loads(pickle.dumps(model)))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert same_embeddings(model, torch.load(file, weights_only=False))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = narrow_model("casia-b", seed=9, divisor=8).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same_embeddings(model, other)


def test_autocast_keeps_batch_norm_and_head_in_float32(backend: str) -> None:
    network = narrow_model("casia-b").train()
    clips = torch.stack([walkers(5, 1), walkers(5, 2)])
    expected = network(clips).embeddings
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(clips)
    assert out.embeddings.dtype == out.logits.dtype == torch.float32
    difference = (out.embeddings - expected).norm() / expected.norm()
    assert 1e-4 < difference < 0.05
    (out.embeddings.square().sum() + out.logits.square().sum()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_a_bfloat16_model_computes_its_head_in_float32(backend: str) -> None:
    network = narrow_model("casia-b").eval()
    expected = network.embed([walkers(5)])
    narrow = network.bfloat16()
    out = narrow(walkers(5)[None])
    assert out.embeddings.dtype == out.logits.dtype == torch.float32
    assert (out.embeddings - expected).norm() < 0.05 * expected.norm()
    narrow.train()(torch.stack([walkers(3, 1), walkers(3, 2)])).logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in narrow.parameters())


def assert_compiles_whole(preset: str, lens: list[int] | None) -> None:
    """Outputs and gradients of the compiled graph are those of the network, in training mode unless packed."""
    network = narrow_model(preset, dtype=torch.float64, divisor=8)
    network.train(lens is None)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    clips = walkers(7)[None] if lens else torch.stack([walkers(4, 1), walkers(4, 2)])
    results = []
    for forward in (network, compiled):
        network.zero_grad()
        out = forward(clips, lens)
        (out.embeddings.sin().sum() + out.logits.sin().sum()).backward()
        results.append([*(value.detach() for value in out), *(p.grad.clone() for p in network.parameters())])
    for eager, graph in zip(*results):
        assert distance(graph, eager) <= 1e-10


@pytest.mark.parametrize(
    ("preset", "lens"),
    [
        pytest.param(preset, lens, marks=[] if preset == quick else pytest.mark.slow, id=f"{preset}-{name}")
        for name, lens, quick in (("batch", None, "casia-b"), ("packed", [1, 2, 4], "gait3d"))
        for preset in NAMES
    ],
)
@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
def test_compiles_whole(preset: str, lens: list[int] | None, backend: str) -> None:
    assert_compiles_whole(preset, lens)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference"], indirect=True)
def test_the_reference_compiles_whole(backend: str) -> None:
    assert_compiles_whole("gait3d", [2, 5])


@pytest.mark.slow
@each_preset
def test_a_whole_preset_compiles_with_inductor(preset: str) -> None:
    torch.compiler.reset()  # torch 2.6 counts the graphs of other tests against its limit
    network = HSTL.from_preset(preset, num_classes=5).eval()
    compiled = torch.compile(network, fullgraph=True)
    with torch.no_grad():
        expected, got = network(walkers(6)[None]), compiled(walkers(6)[None])
    for eager, graph in zip(expected, got):
        assert distance(graph, eager) <= rounding(torch.float32, NETWORK)


def test_checks_of_values_on_an_accelerator_are_asked_for() -> None:
    fractions = torch.empty(1, 3, 64, 44, device="meta")
    check_values(fractions, "silhouettes", check_on_gpu=False)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        check_values(fractions, "silhouettes", check_on_gpu=True)


def test_the_package_names_the_model() -> None:
    assert hstl_fast.HSTL is HSTL
    assert set(PRESETS) == {*NAMES, "grew"}


def test_mirrored_clips_embed(model: HSTL) -> None:
    clip = walkers(4).numpy()
    mirrored = model.embed([clip[:, :, ::-1]])
    assert torch.equal(mirrored, model.embed([np.ascontiguousarray(clip[:, :, ::-1])]))

"""The HSTL network: its configuration, the published presets and the model itself."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._pytree import _register_namedtuple

from hstl_fast import _replayed
from hstl_fast._recorded import RecordedMaps, is_recordable, scaled
from hstl_fast.names import one_of
from hstl_fast.nn import ARME, ASTP, FTA, Layer, SeparateFCs, StripPool
from hstl_fast.ops import _checks, _dispatch
from hstl_fast.ops._shared import (
    channels_last,
    computing_dtype,
    constant_when_compiled,
    under_transforms,
    without_autocast,
)
from hstl_fast.ops._support import Support, check_zero_outside, debugging, grown, halved, windowed
from hstl_fast.ops.arme import arme_of_silhouettes
from hstl_fast.ops.astp import frame_maximum, with_frame_maximum

ROWS, COLUMNS = 64, 44
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
SIDE = 10
"""Columns cut off on each side of a 64 x 64 silhouette."""
FRAMES_OF_A_BATCH, FRAMES_OF_A_BATCH_OF_TRITON = 256, 2048
FEWEST_FRAMES = 3
"""FTA's shortest window; shorter sequences are repeated until they have as many."""


@dataclass(frozen=True)
class Stage:
    """One level of the hierarchy: ARME layers over the regions of `split`, one for each entry of `channels`."""

    split: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class HSTLConfig:
    """The shape of an HSTL network.

    stem: output channels of the plain 3x3x3 convolutions on the whole silhouette.
    stages: the levels after it, coarse to fine; FTA follows the first. Splits sum to 64 rows, or to 32 after `pool`.
    pool: a 2x2 spatial maximum between the stem and the stages.
    strips: equal strips of rows pooled from the last stage's output.
    num_classes: identities in training, K.

    Every pooled part has the last stage's channels, C. Raises ValueError, naming the field, for a network that cannot
    be built. `PRESETS` holds the published ones.
    """

    stem: tuple[int, ...]
    stages: tuple[Stage, ...]
    pool: bool
    strips: int
    num_classes: int

    def __post_init__(self) -> None:
        if not self.stem or not all(_is_count(c) for c in self.stem):
            raise ValueError(f"stem must be one or more positive channel counts, got {self.stem}")
        if not self.stages:
            raise ValueError("stages must hold at least one Stage, got none")
        for i, stage in enumerate(self.stages):
            if not stage.channels or not all(_is_count(c) for c in stage.channels):
                raise ValueError(f"stages[{i}].channels must be one or more positive counts, got {stage.channels}")
            if not stage.split or not all(_is_count(h) for h in stage.split) or sum(stage.split) != self.rows:
                raise ValueError(
                    f"stages[{i}].split must be positive row counts that sum to {self.rows}, got {stage.split}"
                )
        if not _is_count(self.strips) or self.rows % self.strips:
            raise ValueError(f"strips must divide {self.rows} rows, got {self.strips}")
        if not _is_count(self.num_classes):
            raise ValueError(f"num_classes must be a positive integer, got {self.num_classes!r}")

    @property
    def rows(self) -> int:
        """Rows of the feature maps after the stem."""
        return ROWS // 2 if self.pool else ROWS

    @property
    def channels(self) -> int:
        """Length C of a part's embedding."""
        return self.stages[-1].channels[-1]

    def convolutions(self, frames: int) -> "list[Convolution]":
        """Every ARME layer on a clip of so many frames, in the order of computation."""
        c, found = 1, []
        for c_out in self.stem:
            found.append(Convolution(c, c_out, (ROWS,), frames, COLUMNS))
            c = c_out
        for i, stage in enumerate(self.stages):
            for c_out in stage.channels:
                size = (frames // 3 if i else frames, COLUMNS // 2 if self.pool else COLUMNS)
                found.append(Convolution(c, c_out, stage.split, *size))
                c = c_out
        return found

    @property
    def pools(self) -> tuple[tuple[int, int | None, tuple[int, ...]], ...]:
        """Input channels, output channels (None: not projected) and split of every ASTP, in the order of the parts."""
        c = self.channels
        first, *others = self.stages
        last = len(others) - 1
        entries: list[tuple[int, int | None, tuple[int, ...]]] = [(self.stem[-1], c, (ROWS,))]
        entries += [(first.channels[-1], c, first.split)] * 2
        entries += [(s.channels[-1], None if i == last else c, s.split) for i, s in enumerate(others)]
        return tuple(entries)

    @property
    def parts(self) -> int:
        """Number P of parts: the regions of every level and the strips."""
        return sum(len(split) for _, _, split in self.pools) + self.strips


class Convolution(NamedTuple):
    """The size of an ARME layer and of its map; the split gives the rows."""

    c_in: int
    c_out: int
    split: tuple[int, ...]
    frames: int
    columns: int


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_OUMVLP = HSTLConfig(
    stem=(32, 32),
    stages=(
        Stage((4, 24, 4), (64, 64)),
        Stage((4, 4, 12, 8, 4), (128, 128)),
        Stage((4, 4, 12, 4, 4, 4), (256, 256)),
    ),
    pool=True,
    strips=32,
    num_classes=5153,
)

PRESETS: dict[str, HSTLConfig] = {
    "casia-b": HSTLConfig(
        stem=(32,),
        stages=(Stage((40, 24), (32, 64)), Stage((8, 32, 16, 8), (128, 128))),
        pool=False,
        strips=64,
        num_classes=74,
    ),
    "oumvlp": _OUMVLP,
    "grew": replace(_OUMVLP, num_classes=20000),
    "gait3d": HSTLConfig(
        stem=(32, 32),
        stages=(
            Stage((20, 12), (64, 64)),
            Stage((4, 16, 8, 4), (128, 128)),
            Stage((4, 4, 12, 8, 4), (256, 256)),
        ),
        pool=True,
        strips=32,
        num_classes=3000,
    ),
}
"""The published networks. No configuration was released for GREW: comments in the released code point to the OUMVLP
network, so `grew` is `oumvlp` with another number of identities."""


def preset(name: str) -> HSTLConfig:
    """The configuration of a published network; ValueError with the nearest name for an unknown one."""
    return PRESETS[one_of(name, PRESETS, "preset")]


class HSTLOutput(NamedTuple):
    """What HSTL makes of N sequences: P parts each, float32 (float64 from a float64 model)."""

    embeddings: Tensor
    """`[N, P, C]`: after batch norm; what both losses see and what is compared at test."""
    logits: Tensor
    """`[N, P, K]`: one linear classifier per part."""


# torch.export.save writes only the named tuples that it has been told of.
_register_namedtuple(HSTLOutput, serialized_type_name="hstl_fast.HSTLOutput")


class HSTL(Layer):
    """Hierarchical spatio-temporal representation learning for gait recognition (ICCV 2023, arXiv 2307.09856).

    config: the network's shape. check_input: look for values outside the contract on an accelerator too, where it
    costs a synchronisation (on the CPU they are always looked for, except under torch.compile).
    Weights are drawn from torch's global generator: Xavier-uniform convolutions and part-wise maps, powers of 6.5,
    batch-norm weights normal around 1 with deviation 0.02, biases 0.
    """

    def __init__(self, config: HSTLConfig, check_input: bool = False) -> None:
        super().__init__()
        if not isinstance(config, HSTLConfig):
            raise TypeError(f"config must be an HSTLConfig, got {type(config).__name__}; from_preset takes a name")
        self.config = config
        self.check_input = check_input
        c, first = config.channels, config.stages[0]
        self.stem = _layers(1, config.stem, (ROWS,))
        widths = [config.stem[-1], *(stage.channels[-1] for stage in config.stages)]
        self.stages = nn.ModuleList(_layers(c_in, s.channels, s.split) for c_in, s in zip(widths, config.stages))
        self.fta = FTA(first.channels[-1], first.split)
        self.pools = nn.ModuleList(ASTP(*entry) for entry in config.pools)
        self.strips = StripPool(config.strips)
        self.parts = SeparateFCs(config.parts, c, c)
        self.norm = nn.BatchNorm1d(c)
        self.classifier = SeparateFCs(config.parts, c, config.num_classes)
        nn.init.normal_(self.norm.weight, 1.0, 0.02)

    @classmethod
    def from_preset(cls, name: str, num_classes: int | None = None, check_input: bool = False) -> "HSTL":
        """An untrained published network: "casia-b", "oumvlp", "grew" or "gait3d", with the preset's K by default."""
        config = preset(name)
        return cls(config if num_classes is None else replace(config, num_classes=num_classes), check_input)

    def forward(self, silhouettes: Tensor, seq_lens: Sequence[int] | Tensor | None = None) -> HSTLOutput:
        """Embeddings and logits of N sequences.

        silhouettes: `[N, T, 64, 44]`, uint8 0..255 or floating 0..1; with `seq_lens` (a list or 1-D CPU integer
        tensor) `[1, sum(seq_lens), 64, 44]`, packed along T, and N is the number of lengths. One frame becomes three
        of it, two frames become 0, 1, 0, 1, because FTA needs three. Every sequence gets what it would get alone,
        except that batch norm in training mode sees the whole batch.
        Raises TypeError or ValueError, naming the argument, for anything outside this contract.
        """
        lengths = self._lengths(silhouettes, seq_lens)
        embeddings = self._embeddings(silhouettes, lengths, self.norm.training)
        with without_autocast(embeddings):
            return HSTLOutput(embeddings, self.classifier(embeddings))

    @torch.no_grad()
    def embed(self, clips: Iterable[Any], max_frames: int | None = None) -> Tensor:
        """Embeddings `[N, P, C]` of N clips in evaluation mode, whatever mode the model is in, without gradients.

        clips: a list or a generator of arrays or tensors `[T_i, 64, 44]` or `[T_i, 64, 64]` (then 10 columns are cut
        off on each side), uint8 0..255 or floating 0..1, of any lengths. They are packed, in order, into ragged
        batches of at most `max_frames` frames (256, with Triton's kernels 2048), so that memory stays bounded; a longer
        clip goes alone. With Triton's kernels on a GPU, a batch is gathered in pinned memory while the one before is
        computed, by a CUDA graph; nothing waits for the result.
        The model's mode is not touched: several threads may embed at once. Errors name the clip's position.
        """
        if max_frames is None:
            is_triton = self._backend_that_skips() == "triton"
            max_frames = FRAMES_OF_A_BATCH_OF_TRITON if is_triton else FRAMES_OF_A_BATCH
        elif not _is_count(max_frames):
            raise ValueError(f"max_frames must be a positive integer, got {max_frames!r}")
        embeddings = [self._embedded(batch) for batch in _batches(self._clips(clips), max_frames)]
        if not embeddings:
            raise ValueError("clips must hold at least one clip, got none")
        return embeddings[0] if len(embeddings) == 1 else torch.cat(embeddings)

    def official_state_dict(self) -> dict[str, Tensor]:
        """Copies of this model's tensors under the names of the released checkpoints."""
        from hstl_fast import checkpoints

        return checkpoints.to_official(self)

    def load_official_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load tensors with the released names; ValueError, listing them, if any is missing, unexpected or misshaped.

        Nothing is loaded if anything is wrong.
        """
        from hstl_fast import checkpoints

        checkpoints.load_official(self, state_dict)

    @classmethod
    def from_official_checkpoint(cls, path: str | os.PathLike[str], preset: str | None = None) -> "HSTL":
        """The model in a released `.pt` file, its preset and number of identities found from the tensors' shapes.

        `oumvlp` and `grew` have one shape: it is `oumvlp` unless `preset="grew"`. No code from the file is run. Raises
        OSError for a file that cannot be opened and ValueError for one that is not such a checkpoint.
        """
        from hstl_fast import checkpoints

        return checkpoints.load_checkpoint(path, preset).model

    def _lengths(self, silhouettes: Tensor, seq_lens: Sequence[int] | Tensor | None) -> list[int]:
        if not isinstance(silhouettes, Tensor):
            raise TypeError(f"silhouettes must be a tensor [N, T, 64, 44], got {_checks.type_name(silhouettes)}")
        shape = list(silhouettes.shape)
        if len(shape) != 4 or shape[2:] != [ROWS, COLUMNS] or 0 in shape:
            raise ValueError(f"silhouettes must have the shape [N, T, {ROWS}, {COLUMNS}], got {shape}")
        self._check_values(silhouettes, "silhouettes")
        if seq_lens is not None and shape[0] != 1:
            raise ValueError(
                f"silhouettes must be packed as [1, sum(seq_lens), {ROWS}, {COLUMNS}] beside seq_lens, got {shape}"
            )
        return _checks.lengths(seq_lens, silhouettes[:, None])

    def _check_values(self, silhouettes: Tensor, name: str) -> None:
        if silhouettes.dtype == torch.uint8:
            return
        if silhouettes.dtype not in _checks.FLOATING:
            raise TypeError(f"{name} must be uint8 0..255 or floating 0..1, got {silhouettes.dtype}")
        if silhouettes.device.type != "cpu" and not self.check_input:
            return
        if not _checks.has_values(silhouettes):
            return
        low, high = (value.item() for value in silhouettes.detach().aminmax())
        if not (low >= 0 and high <= 1):
            found = "NaN" if low != low else f"values in {low:g}..{high:g}"
            raise ValueError(f"{name} of {silhouettes.dtype} must lie in 0..1 (0..255 is for uint8), got {found}")

    def _embedded(self, clips: list[Tensor]) -> Tensor:
        """`[N, P, C]` of one batch."""
        device, lengths = self.parts.weight.device, [len(clip) for clip in clips]
        if not self._is_replayable(clips) or not _replayed.is_small(lengths):
            return self._embeddings(self._packed(clips), lengths, batch_statistics=False)
        enough = [clip if t >= FEWEST_FRAMES else _repeated(clip[None], [])[0][0] for clip, t in zip(clips, lengths)]

        def compute(silhouettes: Tensor, lengths: list[int]) -> Tensor:
            return self._embeddings(silhouettes, lengths, batch_statistics=False)

        return _replayed.graphs_of(self).embed(enough, compute, _replayed.settings_of(self), device)

    def _embeddings(self, silhouettes: Tensor, lengths: list[int], batch_statistics: bool) -> Tensor:
        """`[N, P, C]`; the classifier, which grows with the identities, is not needed for them."""
        silhouettes, lengths = _repeated(silhouettes, lengths)
        maps = self._maps(silhouettes.to(self.parts.weight.device), lengths)
        pooled = self._pooled(maps)
        maps.finish()
        if isinstance(maps, RecordedMaps) and not batch_statistics and self._has_own_head():
            return maps.mapped(self.parts, self.norm)
        parts = torch.cat(pooled, 2)
        with without_autocast(parts):
            mapped = self.parts(parts.transpose(1, 2)).transpose(1, 2)  # n c p
            return self._normalised(mapped, batch_statistics).transpose(1, 2)

    def _pooled(self, maps: "_Maps | RecordedMaps") -> list[Tensor]:
        """The parts `[N, C, m]` of every pool."""
        for layer in self.stem:
            maps.convolve(layer)
        pools = iter(self.pools)
        parts = [maps.pooled(next(pools))]
        if self.config.pool:
            maps.halve()
        for i, stage in enumerate(self.stages):
            for layer in stage.children():
                maps.convolve(layer)
            if 0 < i == len(self.stages) - 1:
                maps.reduce()
            parts.append(maps.pooled(next(pools)))
            if i == 0:
                maps.aggregate(self.fta)
                parts.append(maps.pooled(next(pools)))
        parts.append(maps.pooled(self.strips))
        return parts

    def _maps(self, silhouettes: Tensor, lengths: list[int]) -> "_Maps | RecordedMaps":
        dtype, backend = self.parts.weight.dtype, self._backend_that_skips()
        if torch.is_grad_enabled() and silhouettes.requires_grad:
            backend = "reference"  # the gradients of the maps themselves are wanted, outside the support too
        if backend == "cpu" and self._is_recordable(silhouettes):
            given = silhouettes if silhouettes.dtype == torch.uint8 else silhouettes.to(dtype)
            return RecordedMaps(given, dtype, lengths)
        support = None if backend == "reference" else silhouettes != 0
        if backend == "triton" and silhouettes.dtype == torch.uint8:
            return _Maps(silhouettes[:, None], lengths, support, backend)
        return _Maps(channels_last(scaled(silhouettes, dtype)[:, None]), lengths, support, backend)

    def _is_recordable(self, silhouettes: Tensor) -> bool:
        """Whether native calls may stand for the layers: nobody wants gradients of them, nor follows, traces, imitates
        or checks what is computed, and nothing is of another type."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or _is_watched():
            return False
        dtype = self.parts.weight.dtype
        if type(silhouettes) is not Tensor or dtype != computing_dtype(dtype):
            return False
        return all(is_recordable(layer, dtype) for layer, _ in self._own_layers())

    def _is_replayable(self, clips: list[Tensor]) -> bool:
        """Whether a graph may stand for the layers: all are Triton's, and nobody follows or checks what is computed."""
        device = self.parts.weight.device
        if device.type != _replayed.DEVICE_TYPE or _is_watched() or _replayed.is_capturing():
            return False
        if any(clip.dtype != torch.uint8 or type(clip) is not Tensor for clip in clips):
            return False
        if {clip.device for clip in clips} not in ({device}, {torch.device("cpu")}):
            return False
        own_map = type(self.parts) is SeparateFCs and _is_untouched(self.parts)
        return own_map and self._backend_that_skips() == "triton"

    def _has_own_head(self) -> bool:
        """Whether native calls may stand for the parts' maps and the norm, too."""
        dtype = self.parts.weight.dtype
        return all(_is_untouched(module) and is_recordable(module, dtype) for module in (self.parts, self.norm))

    def _backend_that_skips(self) -> str:
        """The backend whose layers may be told where the maps are not 0; "reference" if none may: only our own layers
        take notice."""
        if under_transforms() or not self._is_made_of_own_layers():
            return "reference"
        return _dispatch.choose("arme", self.parts.weight.device.type, self.parts.weight.dtype, None)

    @constant_when_compiled
    def _is_made_of_own_layers(self) -> bool:
        """Whether nobody has put a layer in place of ours, or looks at or changes what it gets and gives."""
        if _has_any_global_hook():
            return False
        return all(type(layer) is kind and _is_untouched(layer) for layer, kind in self._own_layers())

    def _own_layers(self) -> list[tuple[nn.Module, type[Layer]]]:
        """Where our layers are expected, and which."""
        layers = [*self.stem, *(layer for stage in self.stages for layer in stage.children())]
        own: list[tuple[nn.Module, type[Layer]]] = [(layer, ARME) for layer in layers]
        own += [(pool, ASTP) for pool in self.pools]
        return [*own, (self.fta, FTA), (self.strips, StripPool)]

    def _normalised(self, x: Tensor, batch_statistics: bool) -> Tensor:
        norm = self.norm
        if batch_statistics:
            y: Tensor = norm(x.to(norm.weight.dtype))
            return y.to(x.dtype)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, variance, weight, bias = (tensor.to(x.dtype) for tensor in tensors)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, norm.eps)

    def _clips(self, clips: Iterable[Any]) -> Iterator[Tensor]:
        for i, clip in enumerate(clips):
            name = f"clips[{i}]"
            if isinstance(clip, np.ndarray):
                clip = _tensor(clip, name)
            if not isinstance(clip, Tensor):
                raise TypeError(f"{name} must be an array or a tensor [T, 64, 44 or 64], got {type(clip).__name__}")
            shape = list(clip.shape)
            if len(shape) != 3 or shape[1] != ROWS or shape[2] not in (COLUMNS, COLUMNS + 2 * SIDE) or 0 in shape:
                raise ValueError(f"{name} must have the shape [T, {ROWS}, 44 or 64] with T >= 1, got {shape}")
            self._check_values(clip, name)
            yield _cropped(clip)

    def _packed(self, clips: list[Tensor]) -> Tensor:
        """The clips along time, `[1, T, 64, 44]`, where they are, or on the model's device."""
        if len({clip.device for clip in clips}) > 1:
            clips = [clip.to(self.parts.weight.device) for clip in clips]
        if any(clip.dtype != torch.uint8 for clip in clips):
            clips = [scaled(clip, self.parts.weight.dtype) for clip in clips]
        return (clips[0] if len(clips) == 1 else torch.cat(clips))[None]


@dataclass
class _Maps:
    """The feature maps `x` of all sequences on their way through the network."""

    x: Tensor
    """[n, c, t, h, w]; before the first layer it may be the silhouettes' bytes, which the layer reads as 0..1."""
    lengths: list[int]
    """Of the sequences packed along t; empty where they are not."""
    support: Tensor | None
    """bool [n, t, h, w]: where `x` may be non-zero, since outside it is exactly 0. None: anywhere."""
    backend: str
    """Of the layers, where there is a support."""

    def convolve(self, layer: nn.Module) -> None:
        """By `ARME`, or what a user has put in its place; there is no support then."""
        if self.support is None:
            self.x = layer(self.x, self.lengths or None)
            return
        assert isinstance(layer, ARME)
        support = grown(self.support, layer.split, self.lengths, self.backend)
        if self.x.dtype != torch.uint8:
            self._apply(layer, support)
            return
        shape = (layer.split, layer.negative_slope, self.lengths)
        self.x, self.support = arme_of_silhouettes(self.x, layer.weight, *shape, support), support.y
        self._check()

    def aggregate(self, fta: FTA) -> None:
        if self.support is None:
            self.x = fta(self.x, self.lengths or None)
        else:
            self._apply(fta, windowed(self.support, self.lengths, self.backend))
        self.lengths = [t // FEWEST_FRAMES for t in self.lengths]

    def halve(self) -> None:
        self.x = _halved(self.x)
        if self.support is not None:
            self.support = halved(self.support, self.backend)
            self._check()

    def finish(self) -> None:
        """Nothing is left to do: every map was computed when it was asked for."""

    def reduce(self) -> None:
        """Leave the maximum over the frames of each sequence, of the last map, which two pools read."""
        if self.support is not None and self._is_indexable():
            maximum = frame_maximum(self.x, Support(self.support), self.lengths, self.backend)
            self.x, self.lengths, self.support = maximum, [], None

    def pooled(self, pool: nn.Module) -> Tensor:
        y: Tensor
        if self.support is None:
            y = pool(self.x, self.lengths or None)
        elif self._has_other_readers():
            self.x, maximum = with_frame_maximum(self.x, Support(self.support), self.lengths, self.backend)
            y = pool(maximum)
        else:
            y = pool(self.x, self.lengths or None, Support(self.support))
        return y

    def _apply(self, layer: nn.Module, support: Support) -> None:
        self.x, self.support = layer(self.x, self.lengths or None, support), support.y
        self._check()

    def _check(self) -> None:
        if self.support is not None and debugging():
            check_zero_outside(self.x, self.support)

    def _has_other_readers(self) -> bool:
        """Whether the pool and the next layer, both our own, will each have a gradient for this map."""
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return False
        return torch.is_grad_enabled() and self.x.requires_grad and self._is_indexable()

    def _is_indexable(self) -> bool:
        """Whether the backend finds these sequences' maxima, as their pools will ask."""
        longest = 0 if torch.compiler.is_compiling() else max(self.lengths or [self.x.shape[2]])
        return _dispatch.why_not("astp", self.backend, self.x.device.type, self.x.dtype, longest) is None


def _is_watched() -> bool:
    """Whether somebody follows, traces, imitates or checks what is computed."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    return bool(torch._C._len_torch_dispatch_stack()) or debugging()


def _is_untouched(layer: nn.Module) -> bool:
    state = vars(layer)
    return "forward" not in state and not any(state.get(name) for name in HOOKS)


def _layers(c_in: int, channels: Sequence[int], split: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(ARME(i, o, split) for i, o in zip((c_in, *channels), channels))


def _tensor(clip: np.ndarray, name: str) -> Tensor:
    try:
        return torch.tensor(np.ascontiguousarray(clip))  # torch refuses mirrored views
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be uint8 0..255 or floating 0..1, got an array of {clip.dtype}") from None


def _cropped(clip: Tensor) -> Tensor:
    return clip if clip.shape[2] == COLUMNS else clip[:, :, SIDE:-SIDE]


def _batches(clips: Iterable[Tensor], max_frames: int) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    frames = 0
    for clip in clips:
        if batch and frames + len(clip) > max_frames:
            yield batch
            batch, frames = [], 0
        batch.append(clip)
        frames += len(clip)
    if batch:
        yield batch


def _repeated(silhouettes: Tensor, lengths: list[int]) -> tuple[Tensor, list[int]]:
    """Every sequence after itself until it has 3 frames: 1 becomes 0, 0, 0 and 2 becomes 0, 1, 0, 1."""
    if all(t >= FEWEST_FRAMES for t in lengths or [silhouettes.shape[1]]):
        return silhouettes, lengths
    if not lengths:
        return torch.cat([silhouettes] * -(-FEWEST_FRAMES // silhouettes.shape[1]), 1), lengths
    counts = [-(-FEWEST_FRAMES // t) for t in lengths]
    pieces = silhouettes.split(lengths, 1)
    repeated = torch.cat([piece for piece, count in zip(pieces, counts) for _ in range(count)], 1)
    return repeated, [t * count for t, count in zip(lengths, counts)]


def _halved(x: Tensor) -> Tensor:
    """2x2 spatial maximum, stride 2, frame by frame; channels-last in and out."""
    n, _, t, _, _ = x.shape
    frames = channels_last(x).transpose(1, 2).flatten(0, 1)  # (n t) c h w
    halved: Tensor = F.max_pool2d(frames, 2)
    return halved.view(n, t, *halved.shape[1:]).transpose(1, 2)

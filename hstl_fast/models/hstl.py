"""The HSTL network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast._torch_private import register_namedtuple
from hstl_fast.backends import ON_GPUS
from hstl_fast.models import cuda_graphs, released
from hstl_fast.models.all_parameters import reach_all_parameters
from hstl_fast.models.config import FEWEST_FRAMES, ROWS, HSTLConfig, is_count, preset
from hstl_fast.models.effective import effective_tensors
from hstl_fast.models.eligibility import (
    backend_with_support,
    backends_of_layers,
    is_made_of_own_layers,
    may_replay,
)
from hstl_fast.models.feature_maps import EagerMaps, FeatureMaps
from hstl_fast.models.inputs import batches, check_clips, check_silhouettes, pack, repeated
from hstl_fast.models.kept_plans import planned_embeddings
from hstl_fast.models.long_clips import FRAMES_OF_A_WINDOW, ClipMaxima, windows
from hstl_fast.models.plan_state import Asked
from hstl_fast.models.recognition import model_in
from hstl_fast.models.released_files import read
from hstl_fast.nn import ARME, ASTP, FTA, Layer, SeparateFCs, StripPool
from hstl_fast.ops._checks import Lengths
from hstl_fast.ops._library import without_autocast

# The frames of a batch of `embed`: on a GPU, where a graph launches it, more are worth while.
FRAMES_OF_A_BATCH, FRAMES_OF_A_BATCH_ON_A_GPU = 256, 2048


class HSTLOutput(NamedTuple):
    """The output of HSTL for N sequences, float32 (float64 from a float64 model).

    Attributes:
        embeddings: `[N, P, C]`, after batch norm; it enters both losses, and is compared in evaluation.
        logits: `[N, P, K]`, one linear classifier per part.
    """

    embeddings: Tensor
    logits: Tensor


# torch.export.save writes registered named tuples only.
register_namedtuple(HSTLOutput, "hstl_fast.HSTLOutput")


class HSTL(Layer):
    """Hierarchical spatio-temporal representation learning for gait recognition (ICCV 2023, arXiv 2307.09856).

    Weights are drawn from torch's global generator: Xavier-uniform convolutions and part-wise maps, powers of 6.5,
    batch-norm weights normal around 1 with deviation 0.02, biases 0.

    Args:
        config: the network's shape.
        check_input: whether values outside the contract are looked for on an accelerator too, where it costs a
            synchronisation. On the CPU they are always looked for, except under torch.compile.

    Raises:
        TypeError: `config` is not an HSTLConfig.
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
    def from_preset(cls, name: str, num_classes: int | None = None, check_input: bool = False) -> HSTL:
        """Make an untrained published network.

        Args:
            name: "casia-b", "oumvlp", "grew" or "gait3d".
            num_classes: Identities in training, K; None takes the preset's.
            check_input: As for the class.

        Returns:
            The model.

        Raises:
            ValueError: The name is unknown, or `num_classes` is not a positive integer.
        """
        config = preset(name)
        return cls(config if num_classes is None else replace(config, num_classes=num_classes), check_input)

    def forward(self, silhouettes: Tensor, seq_lens: Lengths | None = None) -> HSTLOutput:
        """Compute embeddings and logits of N sequences.

        One frame becomes three of it, two frames become 0, 1, 0, 1, because FTA needs three. Every sequence gets what
        it would get alone, except that batch norm in training mode sees the whole batch.

        Where torch.distributed is initialised, an output that the loss is not computed from has a gradient of zero, not
        None, so that DistributedDataParallel finds a gradient for every parameter. An optimiser with weight decay or
        momentum then moves the classifier even under a loss of embeddings alone, unless the classifier is frozen.

        Args:
            silhouettes: `[N, T, 64, 44]`, uint8 0..255 or floating 0..1; with `seq_lens`, `[1, sum(seq_lens), 64, 44]`,
                packed along T, and N is the number of lengths.
            seq_lens: a list, a numpy array or a 1-D CPU integer tensor of the packed sequences' lengths.

        Returns:
            `embeddings` `[N, P, C]` and `logits` `[N, P, K]`.

        Raises:
            TypeError, ValueError: An argument does not fit; the message names it, what was expected and what was given.
        """
        silhouettes, lengths = check_silhouettes(silhouettes, seq_lens, self.check_input)
        embeddings = self._embeddings(silhouettes, lengths, self.norm.training)
        with without_autocast(embeddings):
            logits = self.classifier(embeddings)
            return HSTLOutput(reach_all_parameters(embeddings, logits), logits)

    @torch.no_grad()
    def embed(self, clips: Iterable[Any], max_frames: int | None = None) -> Tensor:
        """Compute embeddings of N clips in evaluation mode, whatever mode the model is in, without gradients.

        The clips are packed, in order, into ragged batches, so that memory stays bounded; a clip that is longer than a
        batch goes alone, and one of more than 360 frames (`max_frames`, if that is more) is computed in windows, with
        the same result up to rounding: memory does not grow with its length. Windows need a network of untouched layers
        of ours, without hooks. With our kernels on a GPU, a batch is gathered in pinned memory while the one before is
        computed, by a CUDA graph; nothing waits for the result. The model's mode is not touched: several threads may
        embed at once.

        Args:
            clips: a list or a generator of arrays or tensors `[T_i, 64, 44]` or `[T_i, 64, 64]` (then 10 columns are
                cut off on each side), uint8 0..255 or floating 0..1, of any lengths.
            max_frames: the most frames of a batch; None takes 256, with our kernels on a GPU 2048.

        Returns:
            `[N, P, C]`.

        Raises:
            TypeError, ValueError: A clip does not fit; the message names its position.
            ValueError: There is no clip, or `max_frames` is not a positive integer.
        """
        if max_frames is None:
            is_on_gpu = self.parts.weight.device.type != "cpu" and backend_with_support(self) in ON_GPUS
            max_frames = FRAMES_OF_A_BATCH_ON_A_GPU if is_on_gpu else FRAMES_OF_A_BATCH
        elif not is_count(max_frames):
            raise ValueError(f"max_frames must be a positive integer, got {max_frames!r}")
        checked = check_clips(clips, self.check_input)
        longest = max(max_frames, FRAMES_OF_A_WINDOW)
        embeddings = [self._embedded(batch, longest) for batch in batches(checked, max_frames)]
        if not embeddings:
            raise ValueError("clips must hold at least one clip, got none")
        return embeddings[0] if len(embeddings) == 1 else torch.cat(embeddings)

    def to(self, *args: Any, **kwargs: Any) -> HSTL:
        """Move or convert the model as `torch.nn.Module.to` does.

        A `memory_format` changes nothing, since feature maps are channels last anyway.

        Args:
            *args: As for `torch.nn.Module.to`.
            **kwargs: As for `torch.nn.Module.to`.

        Returns:
            The model itself.
        """
        kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs)

    def official_state_dict(self) -> dict[str, Tensor]:
        """Copy this model's tensors under the names of the released checkpoints.

        Parametrised, pruned and normed weights are folded; those of a model under `fully_shard` are gathered, and all
        its processes have to call this alike.

        Returns:
            The tensors by their released names, in the released order.

        Raises:
            ValueError: The model lacks tensors of the released network or has others, or they have other shapes.
        """
        names = [slot.name for slot in released.slots(self.config)]
        return released.to_official(effective_tensors(self, names), self.config)

    def load_official_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load tensors with the released names; nothing is loaded if anything is wrong.

        Args:
            state_dict: Exactly the released network's tensors, by name.

        Raises:
            ValueError: A tensor is missing, unexpected or misshaped; the message lists them.
        """
        released.load_official(self.state_dict(), state_dict, self.config)

    @classmethod
    def from_official_checkpoint(cls, path: str | os.PathLike[str], preset: str | None = None) -> HSTL:
        """Make the model in a checkpoint's file; the number of identities is found from the tensors' shapes.

        The file is in the released form, ours or not, a Lightning checkpoint, or a bare `state_dict()`; its tensors
        have the released names or those of `HSTL.state_dict()`, also behind `module.`, `_orig_mod.`, `model.`,
        `network.` and `backbone.`. No code from the file is run.

        Args:
            path: The file.
            preset: The network; None takes what the file says, or else finds it from the shapes. `oumvlp` and `grew`
                have one shape: it is `oumvlp` unless "grew" is named.

        Returns:
            The model.

        Raises:
            OSError: The file cannot be opened.
            ValueError: The file is not such a checkpoint, or not of `preset`; the message says what it holds, or what
                to do.
        """
        return model_in(read(path), path, preset, cls)

    def _embedded(self, clips: list[Tensor], longest: int) -> Tensor:
        """`[N, P, C]` of one batch; a clip of more than `longest` frames is computed in windows."""
        lengths = [len(clip) for clip in clips]
        if lengths[0] > longest and is_made_of_own_layers(self):
            return self._in_windows(clips[0], longest)
        by_graph = may_replay(self, clips, cuda_graphs.DEVICE_TYPE, cuda_graphs.is_capturing)
        if not by_graph or not cuda_graphs.is_small(lengths):
            return self._embeddings(pack(clips, self.parts.weight), lengths, batch_statistics=False)
        enough = [clip if t >= FEWEST_FRAMES else repeated(clip[None], [])[0][0] for clip, t in zip(clips, lengths)]

        def compute(silhouettes: Tensor, lengths: list[int]) -> Tensor:
            return self._embeddings(silhouettes, lengths, batch_statistics=False)

        device = self.parts.weight.device
        key = cuda_graphs.cache_key(self, device, backends_of_layers(self))
        return cuda_graphs.graphs_of(self).embed(enough, compute, key, device)

    def _in_windows(self, clip: Tensor, longest: int) -> Tensor:
        """`[1, P, C]` of a long clip."""
        maxima = ClipMaxima(self, type(self)._walk)
        for window in windows(self.config, len(clip), longest):
            silhouettes = pack([clip[window.start : window.stop]], self.parts.weight).to(self.parts.weight.device)
            maxima.add(silhouettes, window)
        return maxima.embeddings()

    def _embeddings(self, silhouettes: Tensor, lengths: list[int], batch_statistics: bool) -> Tensor:
        """`[N, P, C]`; the classifier, which grows with the identities, is not needed for them."""
        silhouettes, lengths = repeated(silhouettes, lengths)
        silhouettes = silhouettes.to(self.parts.weight.device)
        planned = planned_embeddings(Asked(self, silhouettes, lengths, batch_statistics), type(self)._walk)
        if planned is not None:
            return planned
        maps = EagerMaps(self, silhouettes, lengths)
        self._walk(maps)
        return maps.head(self, batch_statistics)

    def _walk(self, maps: FeatureMaps) -> None:
        """The network: every layer in order, and the pools between them."""
        pools = iter(self.pools)
        for layer in self.stem:
            maps.convolve(layer)
        maps.pool(next(pools))
        if self.config.pool:
            maps.max_pool()
        for i, stage in enumerate(self.stages):
            for layer in stage.children():
                maps.convolve(layer)
            if 0 < i == len(self.stages) - 1:
                maps.reduce()
            maps.pool(next(pools))
            if i == 0:
                maps.aggregate(self.fta)
                maps.pool(next(pools))
        maps.pool(self.strips)


def _layers(c_in: int, channels: Sequence[int], split: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(ARME(i, o, split) for i, o in zip((c_in, *channels), channels))

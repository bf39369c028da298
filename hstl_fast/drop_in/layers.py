"""The kinds of layers that `accelerate` replaces: how each is recognised, and the operator that computes it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hstl_fast import functional
from hstl_fast._torch_private import children_of
from hstl_fast.drop_in import costs, structure
from hstl_fast.drop_in.costs import Convolution, Expected, Situation
from hstl_fast.drop_in.forward import FastForward, Trial, is_feature_map
from hstl_fast.drop_in.global_local import GlobalLocal
from hstl_fast.drop_in.kept import one_region

# The slope of ARME's LeakyReLU, which is inside its forward and cannot be read off.
SLOPE = 0.01
# Frames, rows and columns of a clip, and channels where the layer does not say, of the maps that gains are said for.
CLIP = (30, 64, 44)
USUAL_CHANNELS = 128


class PlainStage(FastForward):
    """3x3x3 convolutions of the whole map, each with its LeakyReLU."""

    kind = "plain stage"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether the module is an `nn.Sequential` with modules that hold a 3D convolution."""
        return isinstance(module, nn.Sequential) and any(structure.holds_conv3d(child) for child in module)

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` unless convolutions and LeakyReLUs alternate."""
        structure.check_class_forward(module, "", nn.Sequential)
        children = list(module)
        for i, child in enumerate(children):
            if i % 2 == 0:
                structure.check_convolution(child, str(i))
            else:
                structure.check_activation(child, str(i))
        if len(children) % 2 == 1:
            raise structure.Mismatch(f"no nn.LeakyReLU follows {len(children) - 1}")

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the names of the convolutions' weights."""
        return {f"{name}.conv3d.weight" for name in list(children_of(module))[::2]}

    def trials(self) -> list[Trial]:
        """Return the shape of a small map with the first convolution's channels."""
        module: Any = self.module
        return [((2, module[0].conv3d.in_channels, 4, 5, 6),)]

    def accepts(self, x: Any, *others: Any) -> bool:
        """Return whether `x` is a feature map, and no slope has been made negative."""
        module: Any = self.module
        slopes = [getattr(module[i], "negative_slope", -1) for i in range(1, len(module), 2)]
        return is_feature_map(x, 5) and len(slopes) > 0 and min(slopes) >= 0

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """Return the output of the convolutions and LeakyReLUs, one after another."""
        module: Any = self.module
        for i in range(0, len(module), 2):
            slope = module[i + 1].negative_slope
            x = functional.arme(x, one_region(module[i].conv3d.weight), [x.shape[3]], negative_slope=slope)
        return self._in_memory_format(x)

    def usual_shape(self) -> tuple[int, ...]:
        """Return the shape of a clip."""
        module: Any = self.module
        return (1, module[0].conv3d.in_channels, *CLIP)

    def expected(self, shape: tuple[int, ...], situation: Situation) -> Expected:
        """Return the expected seconds for an input of this shape."""
        module: Any = self.module
        n, c_in, *sizes = shape
        convs = [module[i].conv3d for i in range(0, len(module), 2)]
        layers = [Convolution(n, conv.in_channels, conv.out_channels, *sizes) for conv in convs]
        own = sum(layer.by_torch(situation) for layer in layers)
        ours = sum(layer.by_us(situation) for layer in layers)
        positions = layers[0].positions
        return Expected(own, ours).with_copies(c_in * positions, layers[-1].c_out * positions, situation)


class TemporalStage(FastForward):
    """GaitGL's local temporal aggregation: a convolution of every third frame with its neighbours, and LeakyReLU."""

    kind = "temporal stage"
    left = "torch's convolution of channels-last maps is as fast"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether the module is an `nn.Sequential` of a convolution over time alone and one more module."""
        if not isinstance(module, nn.Sequential) or len(module) != 2 or not structure.holds_conv3d(module[0]):
            return False
        return getattr(module[0].conv3d, "kernel_size", None) == structure.TEMPORAL_CONV3D["kernel_size"]

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` unless a LeakyReLU follows the convolution, whose windows do not overlap."""
        structure.check_class_forward(module, "", nn.Sequential)
        structure.check_convolution(module[0], "0", structure.TEMPORAL_CONV3D)
        structure.check_activation(module[1], "1")

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the name of the convolution's weights."""
        return {f"{next(iter(children_of(module)))}.conv3d.weight"}

    def trials(self) -> list[Trial]:
        """Return the shape of a small map with two windows of frames."""
        module: Any = self.module
        return [((2, module[0].conv3d.in_channels, 7, 5, 6),)]


class Arme(FastForward):
    """A convolution for every region of rows, then LeakyReLU."""

    kind = "ARME"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether the module has regions of convolutions."""
        return structure.has_regions(module, "conv3d")

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` unless every region has a convolution of the same channels."""
        structure.check_regions(module, "conv3d", structure.check_convolution)
        sizes = {(holder.conv3d.in_channels, holder.conv3d.out_channels) for holder in module.conv3d}
        if len(sizes) != 1:
            raise structure.Mismatch(f"the regions have different channels: {sorted(sizes)}")

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the names of the regions' weights."""
        return {f"conv3d.{i}.conv3d.weight" for i in range(len(module.conv3d))}

    def trials(self) -> list[Trial]:
        """Return the shape of a small map of the layer's channels and rows."""
        module: Any = self.module
        return [((2, module.conv3d[0].conv3d.in_channels, 4, sum(module.split_param), 3),)]

    def accepts(self, x: Any, *others: Any) -> bool:
        """Return whether `x` is a feature map with the rows of the split."""
        return is_feature_map(x, 5) and x.shape[3] == sum(_split(self.module))

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """Return the output of `hstl_fast.functional.arme` for the regions' weights."""
        module: Any = self.module
        weights = [holder.conv3d.weight for holder in module.conv3d]
        y = functional.arme(x, weights, list(module.split_param), negative_slope=SLOPE)
        return self._in_memory_format(y)

    def usual_shape(self) -> tuple[int, ...]:
        """Return the shape of a clip of the layer's rows."""
        module: Any = self.module
        return (1, module.conv3d[0].conv3d.in_channels, *_clip_of_rows(module))

    def expected(self, shape: tuple[int, ...], situation: Situation) -> Expected:
        """Return the expected seconds for an input of this shape."""
        module: Any = self.module
        n, c_in, t, h, w = shape
        conv = module.conv3d[0].conv3d
        regions = [Convolution(n, c_in, conv.out_channels, t, rows, w) for rows in _split(module)]
        whole = regions[0]._replace(rows=h)
        own = sum(region.by_torch(situation) for region in regions)
        own += costs.MAP_VALUE * conv.out_channels * whole.positions  # to join the regions
        weights = (len(regions) - 1) * whole.weights * costs.WINOGRAD[situation.training].weight
        ours = whole.by_us(situation, kept=False) + weights
        if not situation.training:
            ours += (len(regions) - 1) * whole.weights * costs.LAYING_OUT
        size = conv.out_channels * whole.positions
        return Expected(own, ours).with_copies(c_in * whole.positions, size, situation)


class Astp(FastForward):
    """Frame maximum of every sequence, projection, generalised mean of every region."""

    kind = "ASTP"
    arguments = 2

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether the module has regions of pools."""
        return structure.has_regions(module, "hpp")

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` unless there are a frame maximum, a pool per region and, if `flag` is set, a projection."""
        structure.check_regions(module, "hpp", structure.check_region_pool)
        if not isinstance(getattr(module, "SP1", None), nn.Module):
            raise structure.Mismatch("has no frame maximum SP1")
        flag = getattr(module, "flag", None)
        if not isinstance(flag, bool):
            raise structure.Mismatch(f"flag must be True or False, got {flag!r}")
        if flag:
            conv = getattr(getattr(module, "proj", None), "conv", None)
            structure.check_torch_module(conv, "proj.conv", nn.Conv2d, structure.CONV2D)

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the names of the powers, and of the projection if there is one."""
        powers = {f"hpp.{i}.p" for i in range(len(module.hpp))}
        return powers | {"proj.conv.weight"} if module.flag else powers

    def trials(self) -> list[Trial]:
        """Return the shapes of a small batch and of two packed sequences, with their lengths."""
        module: Any = self.module
        c = module.proj.conv.in_channels if module.flag else 4
        rows = sum(module.split_param)
        lengths = torch.tensor([2, 3], device=module.hpp[0].p.device)
        return [((2, c, 3, rows, 3), None), ((1, c, 5, rows, 3), [lengths])]

    def accepts(self, x: Any, *others: Any) -> bool:
        """Return whether `x` is a map with the rows of the split, and whether lengths sum to its frames."""
        if not is_feature_map(x, 5) or x.shape[3] != sum(_split(self.module)):
            return False
        (seq_lens,) = others
        if seq_lens is None:
            return True
        return x.shape[0] == 1 and min(seq_lens, default=0) > 0 and sum(seq_lens) == x.shape[2]

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """Return the output of `hstl_fast.functional.astp` for the regions' powers."""
        module: Any = self.module
        proj = module.proj.conv.weight[:, :, 0, 0] if module.flag else None
        powers = torch.cat([pool.p for pool in module.hpp])
        pooled = functional.astp(x, proj, powers, list(module.split_param), seq_lens=others[0])
        return _as_torch_pools(pooled, x, powers)

    def usual_shape(self) -> tuple[int, ...]:
        """Return the shape of a clip of the layer's rows."""
        module: Any = self.module
        c = module.proj.conv.in_channels if module.flag else USUAL_CHANNELS
        return (1, c, *_clip_of_rows(module))

    def expected(self, shape: tuple[int, ...], situation: Situation) -> Expected:
        """Return the expected seconds for an input of this shape."""
        module: Any = self.module
        pool = costs.of_pool(costs.ASTP, len(module.hpp), math.prod(shape), situation)
        return pool.with_copies(math.prod(shape), 0, situation)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
        """Return the arguments in order, the lengths as a list; None if the call is none that the operator takes."""
        values = super().bind(args, kwargs)
        if values is None or values[1] is None:
            return values
        return [values[0], _lengths(values[1])]


class Fta(FastForward):
    """Frame maxima over windows of 3 and of 5, mixed by a gate for every region."""

    kind = "FTA"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether the module has regions of gated maxima."""
        return structure.has_regions(module, "mma")

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` unless every region has gates of the same channels."""
        structure.check_regions(module, "mma", structure.check_gated_maxima)
        sizes = {size for unit in module.mma for fc in unit.fcs for size in (fc.in_channels, fc.out_channels)}
        if len(sizes) != 1:
            raise structure.Mismatch(f"the gates have different channels: {sorted(sizes)}")

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the names of the gates' weights and biases."""
        gates = [f"mma.{i}.fcs.{k}" for i in range(len(module.mma)) for k in (0, 1)]
        return {f"{gate}.{name}" for gate in gates for name in ("weight", "bias")}

    def trials(self) -> list[Trial]:
        """Return the shape of a small map of 7 frames, which is no multiple of the windows' stride."""
        module: Any = self.module
        return [((2, module.mma[0].fcs[0].in_channels, 7, sum(module.split_param), 3),)]

    def accepts(self, x: Any, *others: Any) -> bool:
        """Return whether `x` is a feature map of 3 frames or more with the rows of the split."""
        return is_feature_map(x, 5) and x.shape[3] == sum(_split(self.module)) and x.shape[2] >= 3

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """Return the output of `hstl_fast.functional.fta` for the gates' weights and biases."""
        module: Any = self.module
        weights = torch.stack([torch.stack([fc.weight[:, :, 0] for fc in unit.fcs]) for unit in module.mma])
        biases = torch.stack([torch.stack([fc.bias for fc in unit.fcs]) for unit in module.mma])
        y = functional.fta(x, weights, biases, list(module.split_param))
        return self._in_memory_format(y)

    def usual_shape(self) -> tuple[int, ...]:
        """Return the shape of a clip of the layer's rows."""
        module: Any = self.module
        return (1, module.mma[0].fcs[0].in_channels, *_clip_of_rows(module))

    def expected(self, shape: tuple[int, ...], situation: Situation) -> Expected:
        """Return the expected seconds for an input of this shape."""
        module: Any = self.module
        pool = costs.of_pool(costs.FTA, len(module.mma), math.prod(shape), situation)
        return pool.with_copies(math.prod(shape), math.prod(shape) // 3, situation)


class StripPool(FastForward):
    """Generalised mean of equal strips of rows; the frames are reduced already."""

    kind = "strip pool"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether the module has numbers of bins and a power."""
        return hasattr(module, "bin_num") and isinstance(getattr(module, "p", None), Tensor)

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` unless the module is a generalised mean of equal strips."""
        structure.check_pool(module, "")

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the name of the power."""
        return {"p"}

    def trials(self) -> list[Trial]:
        """Return the shape of a small map whose frames are reduced."""
        module: Any = self.module
        return [((2, 3, 2 * module.bin_num[0], 3),)]

    def accepts(self, x: Any, *others: Any) -> bool:
        """Return whether `x` is a map `[n, c, h, w]` whose rows the bins divide."""
        module: Any = self.module
        return is_feature_map(x, 4) and x.shape[2] % module.bin_num[0] == 0

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """Return the output of `hstl_fast.functional.strip_pool` for the module's power."""
        module: Any = self.module
        pooled = functional.strip_pool(x.unsqueeze(2), module.p, module.bin_num[0])
        return _as_torch_pools(pooled, x, module.p)

    def usual_shape(self) -> tuple[int, ...]:
        """Return the shape of a map whose frames are reduced."""
        module: Any = self.module
        rows = max(module.bin_num[0], 16)
        return (1, USUAL_CHANNELS, rows - rows % module.bin_num[0], 22)

    def expected(self, shape: tuple[int, ...], situation: Situation) -> Expected:
        """Return the expected seconds for an input of this shape."""
        return costs.of_pool(costs.STRIP_POOL, 1, math.prod(shape), situation)


KINDS: tuple[type[FastForward], ...] = (Arme, Astp, Fta, StripPool, GlobalLocal, TemporalStage, PlainStage)


def kind_of(module: nn.Module) -> type[FastForward] | None:
    """Return the kind of layer that `module` looks like, right or wrong; None for any other module."""
    return next((kind for kind in KINDS if kind.looks_like(module)), None)


def _clip_of_rows(module: Any) -> tuple[int, int, int]:
    rows = sum(_split(module))
    return 30, rows, max(1, rows * 11 // 16)


def _split(module: Any) -> Sequence[int]:
    split: Sequence[int] = module.split_param
    return split


def _lengths(lengths: Any) -> list[int]:
    """Return the lengths in `seqL`, whose first entry holds them, on any device; [] for anything else."""
    try:
        first = lengths[0]
    except (TypeError, IndexError, KeyError):
        return []
    listed = first.tolist() if hasattr(first, "tolist") else first
    is_list = isinstance(listed, (list, tuple)) and all(type(length) is int for length in listed)
    return list(listed) if is_list else []


def _as_torch_pools(pooled: Tensor, x: Tensor, powers: Tensor) -> Tensor:
    """Return `pooled` in the type that `x.pow(powers)` has in torch, contiguous as torch would leave it."""
    return pooled.to(torch.promote_types(x.dtype, powers.dtype)).contiguous()

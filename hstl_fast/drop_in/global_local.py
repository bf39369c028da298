"""GaitGL's layer: a convolution of the whole map beside one of equal strips of rows with shared weights.

The strips become sequences of their own, so that they share the weights that are laid out once, and the sum of their
weights' gradients is that of one convolution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hstl_fast import functional
from hstl_fast.drop_in import structure
from hstl_fast.drop_in.costs import CALL, MAP_VALUE, PASSES, Convolution, Expected, Situation
from hstl_fast.drop_in.forward import FastForward, Trial, is_feature_map
from hstl_fast.drop_in.kept import one_region
from hstl_fast.layout import channels_last

# The slope of LeakyReLU, which is inside the layer's forward and cannot be read off.
SLOPE = 0.01
CONVOLUTIONS = ("global_conv3d", "local_conv3d")
MOST_HALVINGS = 7
# Frames, rows and columns of the map for which a gain is expected where no map is known.
USUAL_MAP = (10, 64, 44)


class GlobalLocal(FastForward):
    """The activated convolutions of the whole map and of strips of rows, added or one below the other."""

    kind = "global-local"
    activates_sum = False

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether the module has two modules that hold a 3D convolution, and a number of halvings."""
        return hasattr(module, "halving") and all(
            structure.holds_conv3d(getattr(module, name, nn.Identity())) for name in CONVOLUTIONS
        )

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` unless both convolutions have the same channels, and the settings are known."""
        for name in CONVOLUTIONS:
            structure.check_convolution(getattr(module, name), name)
        sizes = [tuple(getattr(module, name).conv3d.weight.shape[:2]) for name in CONVOLUTIONS]
        if len(set(sizes)) != 1:
            raise structure.Mismatch(f"the convolutions have different channels: {sizes}")
        _check_halving(module)
        fm_sign = getattr(module, "fm_sign", None)
        if not isinstance(fm_sign, bool):
            raise structure.Mismatch(f"fm_sign must be True or False, got {fm_sign!r}")

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the names of the convolutions' weights."""
        return {f"{name}.conv3d.weight" for name in CONVOLUTIONS}

    @classmethod
    def forms(cls) -> tuple[type[FastForward], ...]:
        """Return the forms to try: convolutions that are activated each, or as a sum."""
        return cls, ActivatedSum

    def trials(self) -> list[Trial]:
        """Return the shapes of small maps with two and with three rows in every strip, whatever their number."""
        module: Any = self.module
        _check_halving(module)  # a layer that is left alone is tried as well
        return [((2, module.global_conv3d.conv3d.in_channels, 4, rows * 2**module.halving, 3),) for rows in (2, 3)]

    def accepts(self, x: Any, *others: Any) -> bool:
        """Return whether `x` is a feature map whose rows the strips divide."""
        module: Any = self.module
        return is_feature_map(x, 5) and x.shape[3] % 2**module.halving == 0

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """Return both convolutions, activated, as a sum or one below the other."""
        module: Any = self.module
        x, strips = channels_last(x), 2**module.halving
        slope = None if self.activates_sum else SLOPE
        whole = _convolved(x, module.global_conv3d, slope)
        parts = _convolved(_apart(x, strips), module.local_conv3d, slope)
        both = _by_strips(whole, strips), _side_by_side(parts, strips)
        if module.fm_sign:
            y = torch.cat(both, 2)
        elif torch.is_grad_enabled() or torch.compiler.is_compiling():
            y = torch.add(*both)
        else:
            y = both[0].add_(both[1])  # a map of our own, which saves another one
        y = y.flatten(2, 3).permute(0, 4, 1, 2, 3)
        return self._in_memory_format(F.leaky_relu(y, SLOPE) if self.activates_sum else y)

    def usual_shape(self) -> tuple[int, ...]:
        """Return the shape of a map in the middle of a network."""
        module: Any = self.module
        return (1, module.global_conv3d.conv3d.in_channels, *USUAL_MAP)

    def expected(self, shape: tuple[int, ...], situation: Situation) -> Expected:
        """Return the expected seconds for an input of this shape."""
        module: Any = self.module
        n, c_in, t, h, w = shape
        c_out, strips = module.global_conv3d.conv3d.out_channels, 2**module.halving
        whole, strip = (Convolution(n, c_in, c_out, t, rows, w) for rows in (h, h // strips))
        parts = strip._replace(maps=n * strips)
        passes = PASSES if situation.training else 1
        joining = passes * MAP_VALUE * c_out * whole.positions
        own = whole.by_torch(situation) + strips * strip.by_torch(situation) + passes * 2 * CALL + 2 * joining
        ours = whole.by_us(situation) + parts.by_us(situation) + joining
        size = c_out * whole.positions * (2 if module.fm_sign else 1)
        return Expected(own, ours).with_copies(c_in * whole.positions, size, situation)


class ActivatedSum(GlobalLocal):
    """The same layer with one activation of the sum."""

    activates_sum = True


def _check_halving(module: Any) -> None:
    """Raise `Mismatch` unless there is a number of strips of which a small map can be made."""
    if type(module.halving) is not int or not 0 <= module.halving <= MOST_HALVINGS:
        raise structure.Mismatch(
            f"halving must be a number of halvings, at most {MOST_HALVINGS}, got {module.halving!r}"
        )


def _convolved(x: Tensor, holder: Any, slope: float | None) -> Tensor:
    weights = one_region(holder.conv3d.weight)
    return functional.arme(x, weights, [x.shape[3]], negative_slope=slope)


def _by_strips(x: Tensor, strips: int) -> Tensor:
    """Return a map [n, c, t, h, w] as [n, t, strips, h / strips, w, c]."""
    n, c, t, h, w = x.shape
    return x.permute(0, 2, 3, 4, 1).reshape(n, t, strips, h // strips, w, c)


def _apart(x: Tensor, strips: int) -> Tensor:
    """Return the strips of a map [n, c, t, h, w] as maps [n * strips, c, t, h / strips, w]."""
    if strips == 1:
        return x
    return _by_strips(x, strips).transpose(1, 2).flatten(0, 1).permute(0, 4, 1, 2, 3)


def _side_by_side(x: Tensor, strips: int) -> Tensor:
    """Return maps of strips [n * strips, c, t, h, w] as [n, t, strips, h, w, c]."""
    n, c, t, h, w = x.shape
    return x.permute(0, 2, 3, 4, 1).reshape(n // strips, strips, t, h, w, c).transpose(1, 2)

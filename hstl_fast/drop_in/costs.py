"""A model of the time that a layer takes on a CPU in float32 and narrower types, in torch and in this package.

The figures were measured on two cores of a Zen 4 processor with torch 2.13, for maps from 3 x 4 x 3 to 30 x 64 x 44 and
1 to 256 channels. Threads divide the work of both, and another processor changes both, so a ratio holds where a time
does not. The number of threads is left out, so that results do not depend on it. torch's figures are those of its
fastest cases; where it takes longer, more is gained than expected.
"""

from typing import NamedTuple

# This package computes a layer that it is expected to compute in at most this share of torch's time.
CONFIDENCE = 0.9

# torch convolves one float32 sequence of up to this many channels x frames x rows by a matrix of all windows, else by
# oneDNN.
WINDOWS_UP_TO = 20480
# Seconds of torch: for a call, a value of a window, a weight (by windows, by oneDNN), a multiply-add, a map's value.
CALL = 20e-6
WINDOW = 1.2e-9
WINDOWS_WEIGHT = 0.7e-9
ONEDNN_WEIGHT = 0.5e-9
MULTIPLY_ADD = 2 / 260e9
MAP_VALUE = 0.5e-9
# Types narrower than float32 have twice as wide products.
NARROW_TYPE = 0.5
# A step computes the output and two gradients.
PASSES = 3

# Seconds to copy a value to another layout, and from how many values on a copy meets memory that is not mapped yet.
COPY = 0.9e-9
LARGE_COPY = 1.6e-9
LARGE = 4_000_000

# Rows and columns of an output tile of Winograd; strips of two rows leave half of it empty.
TILE = 4
# With fewer channels, vectors of the native kernels are not full.
FULL_CHANNELS = 16
# Weights that are laid out at every call, in seconds for each.
LAYING_OUT = 4.1e-9


class Situation(NamedTuple):
    """The conditions of a call that its cost depends on, beside the sizes of the layer.

    Attributes:
        training: Whether gradients are wanted.
        channels_last: Whether the input is channels-last already.
        contiguous_output: Whether the output has to be contiguous.
        narrow: Whether the layer's own forward computes in a type narrower than float32.
    """

    training: bool = False
    channels_last: bool = True
    contiguous_output: bool = False
    narrow: bool = False


class Expected(NamedTuple):
    """Seconds that a layer is expected to take.

    Attributes:
        own: By its own forward.
        ours: By this package, with copies between layouts.
        copies: The copies alone.
    """

    own: float
    ours: float
    copies: float = 0.0

    @property
    def gain(self) -> float:
        """How many times as fast this package is."""
        return self.own / self.ours

    @property
    def pays(self) -> bool:
        """Whether this package is faster by more than such figures err."""
        return self.ours <= CONFIDENCE * self.own

    def with_copies(self, values_in: int, values_out: int, situation: Situation) -> "Expected":
        """Return the same with the copies that a situation needs.

        Args:
            values_in: Values of the input.
            values_out: Values of the output.
            situation: The layouts.

        Returns:
            The expected seconds.
        """
        copies = 0.0 if situation.channels_last else _copy(values_in)
        copies += _copy(values_out) if situation.contiguous_output else 0.0
        copies *= 2 if situation.training else 1  # gradients are copied back
        return Expected(self.own, self.ours + copies, self.copies + copies)


def _copy(values: int) -> float:
    return values * (COPY if values < LARGE else LARGE_COPY)


class Convolution(NamedTuple):
    """A 3x3x3 convolution of maps of one size, and its activation.

    Attributes:
        maps: Sequences that one call convolves.
        c_in: Input channels.
        c_out: Output channels.
        frames: Frames of a map.
        rows: Rows of a map.
        columns: Columns of a map.
    """

    maps: int
    c_in: int
    c_out: int
    frames: int
    rows: int
    columns: int

    @property
    def positions(self) -> int:
        """Positions of all maps."""
        return self.maps * self.frames * self.rows * self.columns

    @property
    def weights(self) -> int:
        """Weights."""
        return 27 * self.c_in * self.c_out

    @property
    def products(self) -> int:
        """Multiply-adds."""
        return self.positions * self.weights

    @property
    def tiled_products(self) -> int:
        """Multiply-adds of maps whose rows and columns fill Winograd's tiles."""
        rows, columns = (-(-size // TILE) * TILE for size in (self.rows, self.columns))
        return self._replace(rows=rows, columns=columns).products

    @property
    def values(self) -> int:
        """Values of input and output."""
        return self.positions * (self.c_in + self.c_out)

    def by_torch(self, situation: Situation) -> float:
        """Return the seconds of torch.

        Args:
            situation: Whether gradients are wanted, and the type.

        Returns:
            Seconds.
        """
        work = MULTIPLY_ADD * self.products * (NARROW_TYPE if situation.narrow else 1)
        by_windows = self.maps == 1 and self.c_in * self.frames * self.rows <= WINDOWS_UP_TO
        if by_windows and not situation.narrow:
            work += WINDOW * 27 * self.c_in * self.positions + WINDOWS_WEIGHT * self.weights
        else:
            work += MAP_VALUE * self.values + ONEDNN_WEIGHT * self.weights
        return (PASSES if situation.training else 1) * (CALL + work)

    def by_us(self, situation: Situation, kept: bool = True) -> float:
        """Return the seconds of this package.

        Args:
            situation: Whether gradients are wanted.
            kept: Whether weights that were laid out are kept for the next call.

        Returns:
            Seconds.
        """
        prices = self._prices()[situation.training]
        products = self.tiled_products if prices in WINOGRAD else self.products
        work = prices.product * products + prices.value * self.values + prices.weight * self.weights
        if not kept and not situation.training and prices.weight:
            work += LAYING_OUT * self.weights
        return prices.call + work

    def _prices(self) -> "tuple[Prices, Prices]":
        if self.c_in == 1:
            return ONE_CHANNEL
        return FEW_CHANNELS if min(self.c_in, self.c_out) < FULL_CHANNELS else WINOGRAD


class Prices(NamedTuple):
    """Seconds of this package for a call, a multiply-add of the definition, a map's value, and a weight."""

    call: float
    product: float
    value: float
    weight: float


# Evaluation, and a step of training, in which weights are laid out anew for every pass.
WINOGRAD = Prices(100e-6, 1.2e-12, 0.7e-9, 1.2e-9), Prices(1.5e-3, 4.4e-12, 1.9e-9, 14e-9)
FEW_CHANNELS = Prices(100e-6, 50e-12, 0.0, 0.0), Prices(0.5e-3, 300e-12, 0.0, 14e-9)
ONE_CHANNEL = Prices(100e-6, 6e-12, 0.2e-9, 0.0), Prices(0.25e-3, 50e-12, 0.0, 0.0)


class PoolPrices(NamedTuple):
    """Seconds of a pooling layer for a call, a region, and a value of its input."""

    call: float
    region: float
    value: float

    def of(self, regions: int, values: int) -> float:
        """Return the seconds of a call.

        Args:
            regions: Regions of the layer.
            values: Values of its input.

        Returns:
            Seconds.
        """
        return self.call + self.region * regions + self.value * values


# By torch and by this package, each in evaluation and in a step of training.
ASTP = (
    (PoolPrices(70e-6, 20e-6, 1.4e-9), PoolPrices(500e-6, 100e-6, 2.0e-9)),
    (PoolPrices(145e-6, 0.0, 0.3e-9), PoolPrices(430e-6, 0.0, 1.2e-9)),
)
FTA = (
    (PoolPrices(150e-6, 40e-6, 2.2e-9), PoolPrices(600e-6, 100e-6, 6e-9)),
    (PoolPrices(190e-6, 0.0, 0.35e-9), PoolPrices(600e-6, 0.0, 1.2e-9)),
)
STRIP_POOL = (
    (PoolPrices(24e-6, 0.0, 1.5e-9), PoolPrices(240e-6, 0.0, 7e-9)),
    (PoolPrices(110e-6, 0.0, 2.0e-9), PoolPrices(340e-6, 0.0, 4.2e-9)),
)


def of_pool(
    prices: tuple[tuple[PoolPrices, PoolPrices], tuple[PoolPrices, PoolPrices]],
    regions: int,
    values: int,
    situation: Situation,
) -> Expected:
    """Return the seconds of a pooling layer, without copies.

    Args:
        prices: `ASTP`, `FTA` or `STRIP_POOL`.
        regions: Its regions.
        values: Values of its input.
        situation: Whether gradients are wanted.

    Returns:
        The expected seconds.
    """
    own, ours = (price[situation.training].of(regions, values) for price in prices)
    return Expected(own, ours)

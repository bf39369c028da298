"""Numbers and walking figures as every section of the report shows them."""

import math
from html import escape

_SMALL = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """Write a power of ten: 10⁻⁷ for -7."""
    return "10" + str(exponent).translate(_SMALL)


def magnitude(value: float) -> int:
    """Find the power of ten of the first digit of a positive number; 0 for zero."""
    return math.floor(math.log10(value)) if value > 0 else 0


def short(value: float) -> str:
    """Write a number of any size, such as 3.1·10⁻⁷."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·{power_of_ten(int(exponent))}"


def body(film: str, label: str = "", still: bool = False) -> str:
    """Write a walking figure of the style class `film`, moving or still; without a label it is decoration."""
    described = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return f'<span class="body {film}{" still" if still else ""}" {described}></span>'

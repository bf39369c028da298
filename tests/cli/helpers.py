"""A way to run the program, and walkers drawn with a few lines."""

import numpy as np
from click.testing import CliRunner, Result

from hstl_fast.cli.app import program


def run(*arguments: object, exit_code: int = 0, typed: str | None = None) -> Result:
    """Run `hstl-fast ARGUMENTS...`, which must end with this exit code and print no traceback."""
    result = invoke(*arguments, typed=typed)
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    return result


def invoke(*arguments: object, typed: str | None = None) -> Result:
    """Run `hstl-fast ARGUMENTS...`; an exception that reaches click is a failure of the test, never an exit code."""
    result = CliRunner().invoke(program, [str(argument) for argument in arguments], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def walker(person: int, frames: int, start: int = 0) -> np.ndarray:
    """Silhouettes [frames, 64, 64] uint8 of a body with two legs that swing; `person` sets its build and its step."""
    rows, columns = np.mgrid[:64, :64]
    sequence = np.zeros((frames, 64, 64), np.uint8)
    for t in range(frames):
        swing = (4 + person) * np.sin(0.5 * (t + start) + person)
        body = (abs(columns - 32) < 5 + person) & (rows > 12) & (rows < 40)
        head = (rows - 7) ** 2 + (columns - 32) ** 2 < (4 + person % 3) ** 2
        legs = [abs(columns - 32 - side * swing * (rows - 40) / 24) < 3 for side in (-1, 1)]
        sequence[t] = 255 * (body | head | ((rows >= 40) & (legs[0] | legs[1])))
    return sequence

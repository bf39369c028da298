"""`python -m benchmarks.gpu.micro [--list]`: build the program and print its path.

With `--list`, what it lists is written to cases.json.
"""

import json
import sys

from benchmarks.gpu import programs
from benchmarks.gpu.micro import CASES
from benchmarks.gpu.micro.build import CannotCompile, built
from hstl_fast.files import atomic_file


def main(arguments: list[str]) -> int:
    """Build the program.

    Returns:
        0: it is built, or was there. 1: it cannot be built here; one line says why.
    """
    try:
        program = built()
    except (programs.MissingProgram, CannotCompile) as error:
        print(error, file=sys.stderr)
        return 1
    print(program)
    if arguments == ["--list"]:
        listed = [json.loads(line) for line in programs.run([str(program), "list"], 60).stdout.splitlines()]
        with atomic_file(CASES) as draft:
            draft.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

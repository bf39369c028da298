"""The program `python -m hstl_fast`, the same as `hstl-fast`."""

import sys

from hstl_fast import _starting

# The extra `[cli]` installs these modules.
_FROM_THE_EXTRA = ("click", "rich")


def main() -> None:
    """Run the command line on `sys.argv`; without the extra `[cli]`, exit with what to install."""
    try:
        from hstl_fast.cli import app
    except ModuleNotFoundError as error:
        if error.name not in _FROM_THE_EXTRA:
            raise
        sys.exit(f"hstl-fast needs {error.name}, which is not installed: pip install 'hstl_fast[cli]'")
    _starting.end()
    app.program(prog_name="hstl-fast")


if __name__ == "__main__":
    main()

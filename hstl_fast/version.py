"""The version of the package, `0+unknown` where it is imported from a checkout that was never installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hstl_fast")
except PackageNotFoundError:
    __version__ = "0+unknown"

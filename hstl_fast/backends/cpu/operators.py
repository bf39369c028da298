"""Imports every page that registers a private operator of the native CPU backend."""

from hstl_fast.backends.cpu import arme, astp, fta, support

__all__ = ["arme", "astp", "fta", "support"]

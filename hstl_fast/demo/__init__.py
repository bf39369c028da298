"""The demo behind `hstl-fast demo`: walkers, measurements on them, and the report. Needs the extra `[cli]`."""

"""The command line program `hstl-fast`, one file per command; needs the extra `[cli]`. See `app.py`."""

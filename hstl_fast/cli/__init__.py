"""The command line program `hstl-fast`: `app.py` and one file per command. Needs the extra `[cli]`."""

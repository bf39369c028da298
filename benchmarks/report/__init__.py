"""Pictures and tables from a folder's `results.json`: `python -m benchmarks.report DIR [--readme README.md]`.

`results.py` reads, `bars.py`, `roofline.py`, `scaling.py` and `shares.py` draw in the manner of `look.py`, `tables.py`
counts, `goals.py` says what is reached, `page.py` and `readme.py` put it before a reader, `__main__.py` writes it all
or checks it. Nothing here measures.
"""

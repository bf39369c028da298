"""Pictures and tables from a folder's `results.json`: `python -m benchmarks.report DIR [--readme README.md]`.

`results.py` reads, `bars.py`, `roofline.py` and `scaling.py` draw in the manner of `look.py`, `tables.py` counts,
`page.py` and `readme.py` put it before a reader, `__main__.py` writes or checks it all. Nothing here measures.
"""

"""Pictures and tables from a folder's `results.json`: `python -m benchmarks.report DIR [--into FILE]`.

`results.py` reads; `bars.py`, `roofline.py`, `scaling.py` and `shares.py` draw with the style of `look.py`; `tables.py`
and `goals.py` count; `page.py` and `markdown.py` make documents; `__main__.py` writes them all or checks them. Nothing
here measures.
"""

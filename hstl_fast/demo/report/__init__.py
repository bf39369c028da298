"""The report of the demo as one HTML page."""

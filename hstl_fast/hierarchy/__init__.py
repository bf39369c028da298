"""The hierarchy of body regions, found from data. Needs the extra `[hierarchy]`."""

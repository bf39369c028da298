"""People recognised while they walk: sources of frames, tracks, windows, sightings."""

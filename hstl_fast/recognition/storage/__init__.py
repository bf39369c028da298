"""The database of a gallery, by SQLAlchemy: only `hstl_fast.recognition.gallery` imports it, at its first use."""

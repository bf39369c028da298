"""Optional packages, imported at their first use; the error for a missing one names the extra that installs it."""

from __future__ import annotations

import importlib
from typing import Any


def pillow() -> Any:
    """Import `PIL.Image`."""
    return _load("PIL.Image", "Pillow", "PNG silhouettes", "cli")


def pillow_font() -> Any:
    """Import `PIL.ImageFont`."""
    return _load("PIL.ImageFont", "Pillow", "names in pictures", "video")


def opencv() -> Any:
    """Import `cv2`."""
    return _load("cv2", "OpenCV", "silhouettes from video", "video")


def byte_track() -> Any:
    """Import the class `ByteTrack`."""
    return _load("edgefirst.tracker", "edgefirst-tracker", "silhouettes from video", "video").ByteTrack


def onnxruntime() -> Any:
    """Import `onnxruntime`."""
    return _load("onnxruntime", "ONNX Runtime", "segmentation models", "segmenter")


def kornia() -> Any:
    """Import `kornia.augmentation`."""
    return _load("kornia.augmentation", "Kornia", "random changes of silhouettes", "train")


def pyyaml() -> Any:
    """Import `yaml`."""
    return _load("yaml", "PyYAML", "YAML files", "train")


def fabric() -> Any:
    """Import `lightning_fabric`."""
    return _load("lightning_fabric", "Lightning Fabric", "trainings", "train")


def tensorboard() -> Any:
    """Import `torch.utils.tensorboard`."""
    return _load("torch.utils.tensorboard", "TensorBoard", "logs for TensorBoard (saving.tensorboard)", "train")


def sqlalchemy() -> Any:
    """Import `sqlalchemy`."""
    return _load("sqlalchemy", "SQLAlchemy", "galleries", "recognition")


def psycopg() -> Any:
    """Import `psycopg`."""
    return _load("psycopg", "psycopg", "galleries on PostgreSQL", "recognition")


def _load(module: str, package: str, purpose: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} need {package}, which could not be imported ({error}); "
            f"install it with: pip install 'hstl_fast[{extra}]'"
        ) from error

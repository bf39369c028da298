"""The processor by its name and numbers: cores of other generations give other results under the same name."""

import platform
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
# Instructions that kernels of deep learning are chosen by, as Linux names them on x86 and on ARM.
INSTRUCTIONS = (
    *("avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "avx512_vp2intersect", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
# Models from one number to another, by vendor and family; as Linux tells AMD's apart, and by Intel's own lists.
_MODELS = {
    ("AuthenticAMD", 0x17): (
        *((0x00, 0x2F, "Zen"), (0x50, 0x5F, "Zen"), (0x30, 0x4F, "Zen 2"), (0x60, 0x7F, "Zen 2")),
        *((0x90, 0x91, "Zen 2"), (0xA0, 0xAF, "Zen 2")),
    ),
    ("AuthenticAMD", 0x19): (
        *((0x00, 0x0F, "Zen 3"), (0x20, 0x5F, "Zen 3"), (0x10, 0x1F, "Zen 4"), (0x60, 0xAF, "Zen 4")),
    ),
    ("AuthenticAMD", 0x1A): (
        *((0x00, 0x2F, "Zen 5"), (0x40, 0x4F, "Zen 5"), (0x60, 0x7F, "Zen 5")),
        *((0x50, 0x5F, "Zen 6"), (0x80, 0xAF, "Zen 6"), (0xC0, 0xCF, "Zen 6")),
    ),
    ("GenuineIntel", 0x06): (
        *((0x55, 0x55, "Skylake or Cascade Lake"), (0x6A, 0x6A, "Ice Lake"), (0x6C, 0x6C, "Ice Lake")),
        *((0x8F, 0x8F, "Sapphire Rapids"), (0xCF, 0xCF, "Emerald Rapids"), (0xAD, 0xAE, "Granite Rapids")),
    ),
}


def description() -> dict[str, Any]:
    """Name, vendor, family, model, stepping, microarchitecture and instruction sets; None for what is not known."""
    known = _fields()
    vendor = known.get("vendor_id")
    family, model, stepping = (_number(known.get(name)) for name in ("cpu family", "model", "stepping"))
    present = set(known.get("flags", known.get("Features", "")).split())
    return {
        "name": known.get("model name") or platform.processor() or platform.machine(),
        "vendor": vendor,
        "family": family,
        "model": model,
        "stepping": stepping,
        "microarchitecture": microarchitecture(vendor, family, model),
        "instructions": [name for name in INSTRUCTIONS if name in present],
    }


def microarchitecture(vendor: str | None, family: int | None, model: int | None) -> str | None:
    """The generation of the cores, such as "Zen 4"; None where the numbers are not known."""
    if vendor is None or family is None or model is None:
        return None
    return next((name for low, high, name in _MODELS.get((vendor, family), ()) if low <= model <= high), None)


def _fields() -> dict[str, str]:
    """The first core in the words of Linux; empty elsewhere."""
    try:
        first = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None

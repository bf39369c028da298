"""The processor is named by its own numbers, and what is not known is not guessed."""

import platform
from pathlib import Path

import pytest

from benchmarks.core import machine, processor

LINUX = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC 9755
stepping\t: 1
flags\t\t: fpu avx2 fma avx512f avx512_bf16 avx512_vp2intersect avx_vnni

processor\t: 1
model\t\t: 99
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm sve\n"


def description(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    (folder / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", folder / "cpuinfo")
    return processor.description()


def test_numbers_are_those_of_the_first_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert description(LINUX, tmp_path, monkeypatch) == {
        "name": "AMD EPYC 9755",
        "vendor": "AuthenticAMD",
        "family": 26,
        "model": 2,
        "stepping": 1,
        "microarchitecture": "Zen 5",
        "instructions": ["fma", "avx2", "avx_vnni", "avx512f", "avx512_bf16", "avx512_vp2intersect"],
    }


def test_a_processor_without_these_numbers_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = description(ARM, tmp_path, monkeypatch)
    assert found["name"] == (platform.processor() or platform.machine())
    assert [found[name] for name in ("vendor", "family", "model", "stepping", "microarchitecture")] == [None] * 5
    assert found["instructions"] == ["asimd", "asimddp", "i8mm", "sve"]
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    assert processor.description()["instructions"] == []


@pytest.mark.parametrize(
    ("vendor", "family", "model", "cores"),
    [
        ("AuthenticAMD", 0x17, 0x31, "Zen 2"),
        ("AuthenticAMD", 0x19, 0x01, "Zen 3"),
        ("AuthenticAMD", 0x19, 0x11, "Zen 4"),
        ("AuthenticAMD", 0x19, 0x61, "Zen 4"),
        ("AuthenticAMD", 0x1A, 0x44, "Zen 5"),
        ("GenuineIntel", 0x06, 0x8F, "Sapphire Rapids"),
        ("GenuineIntel", 0x1A, 0x02, None),
        ("AuthenticAMD", 0x19, 0xF0, None),
        (None, None, None, None),
    ],
)
def test_cores_are_told_by_vendor_family_and_model(
    vendor: str | None, family: int | None, model: int | None, cores: str | None
) -> None:
    assert processor.microarchitecture(vendor, family, model) == cores


def test_the_description_of_the_machine_names_its_processor() -> None:
    assert machine.description()["processor"] == processor.description()

"""What a machine's processor computes by itself."""

from __future__ import annotations

from pathlib import Path

__all__ = ["emulates_bfloat16"]

_CPU_INFO = Path("/proc/cpuinfo")
_COMPUTE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, ARM


def emulates_bfloat16() -> bool:
    """Whether products of bfloat16 are emulated here: 25 times as slow as float32 on a Zen 2.

    False where that is not known, as outside of Linux.
    """
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    listed = (line.partition(":") for line in lines)
    flags = next((v for n, _, v in listed if n.strip() in ("flags", "Features")), None)
    return flags is not None and _COMPUTE_BFLOAT16.isdisjoint(flags.split())

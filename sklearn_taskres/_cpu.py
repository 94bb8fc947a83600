"""What the processor multiplies fast, said without torch if that can be."""

import platform
import sys
from collections.abc import Callable


def has_bfloat16_units() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32.

    It does with Intel's AMX, and with AVX512-BF16 of AMD. An Intel processor with AVX512-BF16 and
    without AMX is faster in float32.
    """
    has = _capabilities()
    is_amd = "AMD" in has.get("cpu_name", "")
    return bool(has.get("amx_bf16", False) or (has.get("avx512_bf16", False) and is_amd))


def _capabilities() -> dict:
    """Instructions by name, from torch where it is loaded, else from Linux, else from torch."""
    if "torch" not in sys.modules and platform.system() == "Linux":
        return _from_linux()
    import torch

    ask: Callable[[], dict] = getattr(torch.cpu, "get_capabilities", _from_linux)  # not in 2.9
    return ask()


def _from_linux() -> dict:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = file.read().partition("\n\n")[0]  # of the processor that is listed first
    except OSError:  # not on Linux
        return {}
    lines = (line.partition(":") for line in first.splitlines())
    about = {key.strip(): value.strip() for key, _, value in lines}
    flags = set(about.get("flags", "").split())
    names = ("amx_bf16", "avx512_bf16")
    cpu_name = f"{about.get('vendor_id', '')} {about.get('model name', '')}"
    return {"cpu_name": cpu_name, **{name: name in flags for name in names}}

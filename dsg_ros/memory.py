"""How much memory a process has."""

from __future__ import annotations


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory (VmRSS) of a process, 0 where /proc does not say."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:")), 0)
    except OSError:
        return 0

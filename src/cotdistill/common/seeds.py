"""Random seeds that are computed from names and settings.

A number drawn for one purpose never depends on how many were drawn for another. So every method of one
repetition gets the same subset, initial weights and order of examples, which paired comparisons need.
"""

from __future__ import annotations

import hashlib


def derive(purpose: str, **axes: object) -> int:
    """Return a seed in [0, 2**63) that depends on `purpose` and the named axes alone, on any machine."""
    text = purpose + "".join(f"|{key}={axes[key]}" for key in sorted(axes))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

"""Numbers in words, as the operator's console tells them."""

import math
from datetime import datetime

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


def lasting(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 20 min", "4 days"."""
    whole = int(max(seconds, 0))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min"
    if whole < 2 * DAY_S:
        minutes = whole % HOUR_S // MINUTE_S
        return f"{whole // HOUR_S} h {minutes} min" if minutes else f"{whole // HOUR_S} h"
    return f"{whole // DAY_S} days"


def ago(moment: datetime, now: datetime) -> str:
    return f"{lasting((now - moment).total_seconds())} ago"


def size(count: float) -> str:
    """Of bytes."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{int(count)} B"


def number(value: float) -> str:
    """With three digits that count; a loss may be infinite, or none."""
    return f"{value:.3g}" if math.isfinite(value) else {math.inf: "infinite", -math.inf: "minus infinite"}.get(value, "no number")

"""Why a site gave no update, as one of a few words: what sites and errors say is free, and a label of a metric must not be."""

import re
from typing import Literal, get_args

from rainhill.messages import UNTOLD

Reason = Literal["contact", "silent", "waiting", "failed", "invalid", "not_asked", "site"]
"""It was not in contact; it did not answer in time; a person or its hours were waited for; its process failed; what it sent does not hold;
it takes no part, or was revoked; the site, or its own file, said no."""
REASONS: tuple[Reason, ...] = get_args(Reason)

_FORMS: tuple[tuple[Reason, str], ...] = (
    ("contact", r"(is not in contact|has lost contact|has not been in contact)\b"),
    ("waiting", r"waits for|its update waits|trains from \d|the site has paused|its approval ended|was approved for \d+ rounds"),
    ("silent", r"has not answered|no answer\b"),
    ("failed", rf"its process failed|{re.escape(UNTOLD)}"),
    ("not_asked", r"was revoked$|takes no part in this run$"),
    # Of `rainhill.wire`, `rainhill.stamp` and `server.rounds`, which hold an answer against its plan.
    ("invalid", r"not a (Rainhill|safetensors) message|message (version|header)|a message without|answer \d+: |its answer is (of|larger)"),
    ("invalid", r"(\S+: )?(its update has epsilon|gives no number of patients|answer is for|(choice|patients) -?\d+ is not)"),
    ("invalid", r"\S+: (shape|dtype|holds|missing|not a declared|\d+ of \d+ values)|.* is not finite$"),
)


def reason_of(words: str) -> Reason:
    """What is like nothing that the coordinator or the daemon itself says is a person's, or the site's file's."""
    return next((reason for reason, form in _FORMS if re.match(form, words)), "site")

"""The site's console: what is asked of it, what left, what it cost, what it brought; and what its people decide."""

VIEWER, GOVERNANCE, ADMIN = "viewer", "governance", "admin"
ROLES = (VIEWER, GOVERNANCE, ADMIN)
"""Who looks; who also decides what the site takes part in and what leaves it; and who looks after the daemon and the accounts, and does
not decide."""
LONGEST_WORDS = 2000
"""Characters of a reason."""
PER_PAGE = 50
"""Entries of a list that grows."""

"""The operator's console: who belongs to the consortium, what runs, and what there is to do."""

VIEWER, OPERATOR = "viewer", "operator"
ROLES = (VIEWER, OPERATOR)
"""Who looks, and who also begins, stops and resumes runs."""

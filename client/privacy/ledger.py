"""A site's privacy ledger: the book of what its patients were charged."""

from client.book import Book
from client.privacy.events import KINDS, Opened

KEYS, UPDATES = "keys", "updates"
"""Folders beside a ledger that only what it was charged for brings about."""


class Ledger(Book):
    stem = "ledger"
    first = Opened
    kinds = KINDS
    traces = (KEYS, UPDATES)
    lost = (
        "is gone, though {traces} of rounds charged to it are there. With a new one, patients would spend their budgets a second time: "
        "put the old one back with its ledger.head, or keep these patients out of private runs for good"
    )

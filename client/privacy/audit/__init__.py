"""The audit of the private step by attack: the code that ships, on patients of nobody, held against what the ledger is charged for.

It can find faults. It cannot show that there are none.
"""

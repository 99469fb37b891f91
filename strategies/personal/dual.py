"""A private LoRA pair, head and temperature on top of the frozen shared adapter, fitted when the rounds are over. arXiv:2603.10967."""

from strategies.personal._personal import Personal


class Dual(Personal):
    source = "arXiv:2603.10967"
    summary = "shared adapter, and a private pair and head on top"
    after = "dual"

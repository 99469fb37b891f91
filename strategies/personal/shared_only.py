"""Every site uses the shared adapter as it is, with a temperature of its own."""

from strategies.personal._personal import Personal


class SharedOnly(Personal):
    source = ""
    summary = "the shared adapter as it is"

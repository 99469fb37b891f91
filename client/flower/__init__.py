"""Flower at a site: its SuperNode, and what answers the messages that it brings."""

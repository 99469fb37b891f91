"""Flower at the coordinator: its SuperLink, and what is said over it."""

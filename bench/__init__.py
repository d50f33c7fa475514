"""Measurements of the running product; every one prints JSON."""

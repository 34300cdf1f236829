"""Hostile inputs that were once wrong, part by part, and a few of each part of ``fuzz``."""

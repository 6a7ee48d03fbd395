"""Servers that serve the repository: a change is followed on each of them, or judged on one of them first."""

"""The rules, one module a group. `lint/registry.py` finds them here."""

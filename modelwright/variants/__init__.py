"""Variants: other models made from one source, by techniques such as `optimise` and `quantise`."""

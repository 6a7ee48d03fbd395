"""`modelwright new NAME --from X`: what X is, and a builder around it. One module a kind of thing."""

"""The HTML report of a load test: one file, no network, no scripts. `html.render` makes it."""

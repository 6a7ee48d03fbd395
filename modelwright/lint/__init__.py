"""The offline linter: what tritonserver checks when it loads a repository, and traps that it does not mention.

    rule.py        what a rule is
    rules/         the rules, by group; registry.py finds them
    tree.py        a repository as a server sees it: folders, versions, links
    view.py        one config as the server reads it; completion.py fills in what is left out
    engine.py      runs the rules
    formats.py     the findings as text, JSON, GitHub annotations and SARIF
    examples.py    the example of a rule as files; explain.py: --explain, and docs/lint.md

It only reads files: it needs no server, no GPU and no weights. `tests/lint/` compares it with the real server.
"""

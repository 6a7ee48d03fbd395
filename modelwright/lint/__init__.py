"""The offline linter: what tritonserver checks when it loads a repository, and the traps that it does not mention.

    rule.py        what a rule is; rules/ holds them, by group
    tree.py        a repository as a server sees it: folders, versions, links
    view.py        one config as the server takes it; completion.py fills in what is left out
    engine.py      runs the rules; formats.py prints what they find
    explain.py     --explain, and docs/lint.md

It reads files and nothing else: no server, no GPU, no weights. `tests/lint/` holds it against the real server.
"""

"""The rules in words: `--explain ID` and docs/lint.md, both made from the rules themselves."""

from __future__ import annotations

from modelwright.lint.examples import base_text, files_of
from modelwright.lint.registry import all_rules
from modelwright.lint.rule import GROUPS, Absent, Content, Folder, Link, Locked, Onnx, Rule

_INTRODUCTION = """\
# Lint rules

<!-- Made from the rules by `make docs`: change modelwright/lint/rules/, not this file. -->

`modelwright lint [PATH]` checks a Triton model repository offline: any repository, also one that was not built here. It
reads folders, configs and what ONNX files declare; no server, no GPU, no weights.

```
modelwright lint                          the project's repository, for the project's Triton release
modelwright lint PATH --target 26.07      any other one
modelwright lint --format github          text, json, github (annotations) or sarif (code scanning)
modelwright lint --explain MW301          one rule, with an example
```

An **error** means that the server refuses the model, or worse; a **warning** that it loads, and does something else
than one would think. The exit code is 0 without errors, 1 with one (with `--strict`: also with a warning), and 2
where the linter could not run. `modelwright build` lints before it publishes: what it publishes has no errors.

A server completes configs by itself unless it runs with `--disable-auto-complete-config`; give the linter the same
flag, or not, as your server has it.

A rule that does not hold for a project is ignored in its `modelwright.toml`, with the reason:

```toml
[[lint.ignore]]
rule = "MW902"
models = ["bert*"]  # all of them, if left out
reason = "our servers run with --rate-limit=execution_count"
```

{count} rules. Those without a note are held against the real tritonserver by the differential tests (`make
lint-differential`): where it refuses a model there is an error, and where it loads one there is none.

Examples show the lines of `m/config.pbtxt` that matter, and files beside it; the rest is what follows here.
"""
_BASES = {"python": "most rules", "onnxruntime": "rules about ONNX", "ensemble": "ensembles", "tensorrt": "TensorRT"}


def explain(rule: Rule) -> str:
    """One rule, for a terminal."""
    fault, fixed = _shown(rule, fault=True), _shown(rule, fault=False)
    parts = [
        f"{rule.id} {rule.title} ({rule.severity.value})",
        f"{rule.why}",
        f"Fix: {rule.fix}",
        f"Fault:\n{_indented(fault)}\nFixed:\n{_indented(fixed)}",
    ]
    if rule.unexercised:
        parts.append(f"Not held against a real server: {rule.unexercised}.")
    return "\n\n".join(parts)


def document() -> str:
    """docs/lint.md."""
    rules = all_rules()
    parts = [_INTRODUCTION.format(count=len(rules))]
    parts += [f"For {what}:\n\n```\n{base_text(base)}```\n" for base, what in _BASES.items()]
    parts.append("\n".join([*_table(rules), ""]))
    for digit, title in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_section(rule) for rule in rules.values() if rule.id[2] == digit]
    return "\n".join(parts)


def _table(rules: dict[str, Rule]) -> list[str]:
    rows = [f"| [{rule.id}](#{rule.id.lower()}) | {rule.severity.value} | {rule.title} |" for rule in rules.values()]
    return ["| rule | severity | what it finds |", "|---|---|---|", *rows]


def _section(rule: Rule) -> str:
    lines = [
        f'### <a id="{rule.id.lower()}"></a>{rule.id} {rule.title}\n',
        f"{rule.severity.value.capitalize()}. {rule.why}\n",
    ]
    lines += ["Fault:\n", f"```\n{_shown(rule, fault=True)}\n```\n", f"Fix: {rule.fix}\n"]
    lines.append(f"```\n{_shown(rule, fault=False)}\n```\n")
    if rule.unexercised:
        lines.append(f"*Not held against a real server: {rule.unexercised}.*\n")
    return "\n".join(lines)


def _shown(rule: Rule, *, fault: bool) -> str:
    """What differs: lines of the config, and the files that only one of the two has."""
    example = rule.example
    ours, theirs = files_of(example, fault=fault), files_of(example, fault=not fault)
    lines = (example.fault if fault else example.fixed).splitlines()
    lines = lines if example.fault != example.fixed else []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name, Absent()), theirs.get(name, Absent())
        if (mine != other and name != "m/config.pbtxt") or (mine != other and not isinstance(mine, str)):
            lines.append(f"{name}{_content(mine)}")
    flag = "" if example.auto_complete else "with --disable-auto-complete-config"
    return "\n".join([*lines, flag] if flag and fault else lines) or "(nothing of the kind)"


def _content(content: Content) -> str:
    if isinstance(content, Absent):
        return "  is not there"
    if isinstance(content, Folder):
        return "/"
    if isinstance(content, Locked):
        return "/  that the server's user may not list"
    if isinstance(content, Link):
        return f" → {content.target}"
    if isinstance(content, Onnx):
        return f"  {content}"
    if isinstance(content, bytes):
        return f"  {len(content):,} bytes"
    text = " ".join(content.split())
    return f"  {text}" if 1 < len(text) < 120 else ""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())

"""The rules in words: `--explain ID` and docs/lint.md, both made from the rules."""

from __future__ import annotations

import json

from modelwright.lint.examples import base_text, files_of
from modelwright.lint.pretty import config_lines, json_lines
from modelwright.lint.registry import all_rules
from modelwright.lint.rule import GROUPS, Absent, FileContent, Folder, Locked, Onnx, Rule, Symlink, TensorRtPlan, Zip

_INTRODUCTION = """\
# Lint rules

<!-- Made from the rules by `make docs`: change modelwright/lint/rules/, not this file. -->

`modelwright lint [PATH]` checks a Triton model repository offline, also one that Modelwright did not build. It reads
folders, configs and the declarations in ONNX files. It needs no server and no GPU, and reads no weights.

```
modelwright lint                          the project's repository, for the project's Triton release
modelwright lint PATH --target 26.07      another repository, or another release
modelwright lint --format github          text, json, github (annotations) or sarif (code scanning)
modelwright lint --explain MW301          one rule, with an example
```

An **error** means that the server refuses the model, or crashes. A **warning** means that the model loads, and does
not do what its config suggests. The exit code is 0 without errors, 1 with errors (with `--strict` also with warnings),
and 2 if the linter could not run. `modelwright build` lints before it publishes, and publishes nothing with errors.

A server completes configs unless it runs with `--disable-auto-complete-config`. If your server has that flag, give it
to the linter, too. Where the server completes, the linter does what the onnxruntime backend does, and says nothing of
what only the server can know: what a Python model's `auto_complete_config` or another backend's file fills in.

To ignore a rule in a project, write it into `modelwright.toml` with the reason:

```toml
[[lint.ignore]]
rule = "MW902"
models = ["bert*"]  # all models if left out
reason = "our servers run with --rate-limit=execution_count"
```

There are {count} rules. The differential tests (`make lint-differential`) compare them with the real tritonserver:
where the server refuses a model the linter has an error, and where the server loads it the linter has none. Rules that
these tests cannot cover have a note.

The examples show files and lines of `m/config.pbtxt`, added to one of these configs.
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
        parts.append(f"Not tested against a real server: {rule.unexercised}.")
    return "\n\n".join(parts)


def document() -> str:
    """docs/lint.md."""
    rules = all_rules()
    parts = [_INTRODUCTION.format(count=len(rules))]
    parts += [f"For {what}:\n\n```\n{_base_text(base)}\n```\n" for base, what in _BASES.items()]
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
        lines.append(f"*Not tested against a real server: {rule.unexercised}.*\n")
    return "\n".join(lines)


def _shown(rule: Rule, *, fault: bool) -> str:
    """What differs: lines of the config, and files that only one of the two has."""
    example = rule.example
    ours, theirs = files_of(example, fault=fault), files_of(example, fault=not fault)
    lines = config_lines(example.fault if fault else example.fixed)
    lines = lines if example.fault != example.fixed else []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name, Absent()), theirs.get(name, Absent())
        if (mine != other and name != "m/config.pbtxt") or (mine != other and not isinstance(mine, str)):
            lines += _content(name, mine)
    flag = "" if example.auto_complete else "with --disable-auto-complete-config"
    return "\n".join([*lines, flag] if flag and fault else lines) or "(without it)"


def _base_text(base: str) -> str:
    return "\n".join(config_lines(base_text(base)))


def _content(name: str, content: FileContent) -> list[str]:
    """A file in an example: its name, and what it is or holds."""
    if isinstance(content, str | Symlink | Onnx | TensorRtPlan | Zip):
        lines = [f"→ {content.target}"] if isinstance(content, Symlink) else _text_lines(str(content))
        return [name, *(f"    {line}" for line in lines)] if len(lines) > 1 else [f"{name}  {''.join(lines)}".rstrip()]
    if isinstance(content, bytes):
        return [f"{name}  {len(content):,} bytes"]
    kinds = {Absent: "  missing", Folder: "/", Locked: "/  not readable for the server's user"}
    return [f"{name}{kinds[type(content)]}"]


def _text_lines(text: str) -> list[str]:
    if text.startswith("{"):
        return json_lines(json.loads(text))
    return config_lines(text) if text.startswith(("backend", "platform", "name:")) else text.rstrip().splitlines()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())

"""`modelwright lint` as people and programs use it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from modelwright.cli.main import main
from modelwright.lint.examples import files_of, write
from modelwright.lint.registry import all_rules
from tests.conftest import ROOT, Sandbox
from tests.lint import trees
from tests.lint.cases import all_cases

BROKEN = all_rules()["MW301"].example
TRAP = all_rules()["MW901"].example


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    return root


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["lint", *map(str, arguments)])


def test_a_finding_names_file_line_rule_and_fix(repository: Path) -> None:
    write(files_of(BROKEN, fault=True), repository)
    result = run(repository, "--target", "26.07")
    assert result.exit_code == 1
    rule = all_rules()["MW301"]
    assert result.output == (
        "m/config.pbtxt:5: error MW301: preferred_batch_size 9 is above max_batch_size 8\n"
        f"    why: {rule.why}\n"
        f"    fix: {rule.fix}\n"
        "1 error, 0 warnings in 1 model for Triton 26.07\n"
    )


def test_a_clean_repository_says_so(repository: Path) -> None:
    write(files_of(BROKEN, fault=False), repository)
    result = run(repository, "--target", "26.07")
    assert (result.exit_code, result.output) == (0, "clean: 1 model for Triton 26.07\n")


def test_the_reason_is_given_once_for_each_rule(repository: Path) -> None:
    write(files_of(BROKEN, fault=True), repository)
    (repository / "m").rename(repository / "n")
    write(files_of(BROKEN, fault=True), repository)
    output = run(repository).output
    assert output.count("error MW301") == 2
    assert output.count("why: ") == 1


def test_warnings_fail_only_a_strict_run(repository: Path) -> None:
    write(files_of(TRAP, fault=True), repository)
    assert run(repository).exit_code == 0
    assert run(repository, "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["models", "--target", "99.99"], "unknown Triton release '99.99'"),
        (["models/m"], "models/m: is a model, not a repository"),
        (["models/m/config.pbtxt"], "config.pbtxt: is a file"),
        (["--explain", "MW999"], "unknown rule 'MW999'"),
        ([], "no modelwright.toml in"),
    ],
    ids=["missing", "release", "model", "file", "rule", "no project"],
)
def test_what_could_not_run_exits_with_2(
    arguments: list[str], message: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(files_of(BROKEN, fault=False), repository)
    monkeypatch.chdir(repository.parent)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "hint:" in result.output


def test_without_a_path_the_projects_repository_is_meant(sandbox: Sandbox) -> None:
    write(files_of(BROKEN, fault=True), sandbox.root / "model_repository")
    result = sandbox.cli("lint")
    assert result.exit_code == 1
    assert "for Triton 26.07" in result.output


def test_an_empty_repository_is_clean(repository: Path) -> None:
    assert run(repository).exit_code == 0


# --- ignores ----------------------------------------------------------------------------------------------------------


def ignoring(sandbox: Sandbox, text: str) -> Result:
    write(files_of(BROKEN, fault=True), sandbox.root / "model_repository")
    file = sandbox.root / "modelwright.toml"
    file.write_text(f"{file.read_text()}\n{text}")
    return sandbox.cli("lint")


def test_an_ignored_rule_is_counted_and_not_shown(sandbox: Sandbox) -> None:
    result = ignoring(sandbox, '[[lint.ignore]]\nrule = "mw301"\nmodels = ["m*"]\nreason = "a test"\n')
    assert (result.exit_code, result.output) == (0, "clean: 1 model for Triton 26.07 (1 ignored, with reasons)\n")


def test_an_ignored_error_of_a_member_is_none_of_its_ensemble(sandbox: Sandbox) -> None:
    write(files_of(all_rules()["MW708"].example, fault=True), sandbox.root / "model_repository")
    assert sandbox.cli("lint").output.count("MW708") == 1
    file = sandbox.root / "modelwright.toml"
    file.write_text(f'{file.read_text()}\n[[lint.ignore]]\nrule = "MW501"\nmodels = ["part"]\nreason = "a test"\n')
    assert "MW708" not in sandbox.cli("lint").output


def test_an_ignore_that_covers_nothing_is_named(sandbox: Sandbox) -> None:
    result = ignoring(sandbox, '[[lint.ignore]]\nrule = "MW301"\nmodels = ["other"]\nreason = "a test"\n')
    assert result.exit_code == 1
    assert "note: lint.ignore of MW301 for other" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[lint.ignore]]\nrule = "MW301"\n', "lint.ignore[0].reason: a text is needed"),
        ('[[lint.ignore]]\nrule = "MW301"\nreason = " "\n', "lint.ignore[0].reason: a text is needed"),
        ('[[lint.ignore]]\nreason = "x"\n', "lint.ignore[0].rule: a text is needed"),
        ('[[lint.ignore]]\nrule = "MW777"\nreason = "x"\n', "lint.ignore[0].rule: unknown rule 'MW777'"),
        ('[[lint.ignore]]\nrule = "MW301"\nreason = "x"\nmodels = "m"\n', "lint.ignore[0].models: a list of names"),
        ('[[lint.ignore]]\nrule = "MW301"\nreason = "x"\nmodel = ["m"]\n', "lint.ignore[0].model: unknown field"),
        ("[lint]\nignored = []\n", "lint.ignored: unknown field"),
        ('[lint]\nignore = "MW301"\n', "lint.ignore: a list of tables is needed"),
    ],
    ids=["no reason", "blank reason", "no rule", "unknown rule", "models", "misspelt", "misspelt table", "no list"],
)
def test_a_faulty_ignore_is_refused(text: str, message: str, sandbox: Sandbox) -> None:
    result = ignoring(sandbox, text)
    assert result.exit_code == 2
    assert f"modelwright.toml: {message}" in result.output


# --- formats ----------------------------------------------------------------------------------------------------------


def test_json_holds_what_people_see_and_more(repository: Path) -> None:
    write(files_of(BROKEN, fault=True), repository)
    data = json.loads(run(repository, "--format", "json", "--target", "26.07").output)
    assert (data["schema"], data["target"], data["models"], data["errors"]) == (1, "26.07", 1, 1)
    (finding,) = data["findings"]
    assert finding["rule"] == "MW301"
    assert (finding["file"], finding["line"], finding["severity"]) == ("m/config.pbtxt", 5, "error")
    assert finding["why"]
    assert finding["fix"]


def test_github_gets_annotations(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(files_of(BROKEN, fault=True), repository)
    monkeypatch.chdir(repository.parent)
    first, last = run("models", "--format", "github").output.splitlines()
    assert first.startswith("::error file=models/m/config.pbtxt,line=5,title=MW301 ")
    assert "::preferred_batch_size 9" in first
    assert last.startswith("1 error")


def test_github_commands_are_escaped(repository: Path) -> None:
    write({"a,b:c/config.pbtxt": 'backend: "py%\n'}, repository)
    line = run(repository, "--format", "github").output.splitlines()[0]
    properties = re.fullmatch(r"::error (.*?)::(.*)", line)
    assert properties
    assert "a%2Cb%3Ac" in properties[1]
    assert not re.search(r"%(?!25|0A|0D|2C|3A)", line)


def sarif(repository: Path, *arguments: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(run(repository, "--format", "sarif", *arguments).output)
    return data


def test_sarif_has_every_rule_and_a_place_for_each_result(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(files_of(BROKEN, fault=True), repository)
    monkeypatch.chdir(repository.parent)
    data = sarif(Path("models"))
    assert data["version"] == "2.1.0"
    (ran,) = data["runs"]
    rules = ran["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(all_rules())
    (result,) = ran["results"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "MW301"
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "models/m/config.pbtxt"}, "region": {"startLine": 5}}


def test_sarif_says_what_is_suppressed_and_why(sandbox: Sandbox) -> None:
    ignoring(sandbox, '[[lint.ignore]]\nrule = "MW301"\nreason = "a test"\n')
    data = json.loads(sandbox.cli("lint", "--format", "sarif").output)
    assert data["runs"][0]["results"][0]["suppressions"] == [{"kind": "external", "justification": "a test"}]


def test_explain_shows_fault_and_fix() -> None:
    output = run("--explain", "mw301").output
    assert "preferred_batch_size: [ 4, 9 ]" in output
    assert "preferred_batch_size: [ 4, 8 ]" in output


def test_linting_imports_no_ml_framework_nor_numpy(repository: Path) -> None:
    import subprocess
    import sys

    write(files_of(all_rules()["MW605"].example, fault=False), repository)
    code = (
        "import sys; from modelwright.cli.main import main\n"
        f"try: main(['lint', {str(repository)!r}])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'tritonclient', 'grpc', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_folder_without_permission_is_a_finding_or_an_error(repository: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    repository.chmod(0)
    try:
        assert run(repository).exit_code == 2
    finally:
        repository.chmod(0o755)


def test_what_only_onnxruntime_knows_is_named_where_it_is_not_installed(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = (case for case in all_cases() if case.id == "onnx/output less declared than inferred")
    trees.write(case.tree, repository)
    monkeypatch.setattr("modelwright.lint.view.find_spec", lambda name: None)
    result = run(repository)
    assert "Not checked: sizes that only onnxruntime infers, in m/1/model.onnx\n  hint: " in result.stderr
    assert "MW606" not in result.output
    assert result.exit_code == 0

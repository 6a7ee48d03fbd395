"""Source kinds: the records of the shipped ones, and plug-ins that other distributions bring."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelwright.errors import KindError
from modelwright.facts.compared_with import ComparedWith
from modelwright.kinds import kind as kind_module
from modelwright.kinds import registry
from modelwright.kinds.step import StepFunction
from modelwright.operations import schema
from modelwright.operations.doctor import Machine, Row, examine
from tests.conftest import ROOT, Sandbox
from tests.operations.test_doctor import INTERPRETER, answers
from tests.server.models import shared_environment

DOCUMENT = (ROOT / "docs/kinds.md").read_text(encoding="utf-8")
TOY_KIND = DOCUMENT.partition("```python\n")[2].partition("```\n")[0]  # a whole kind, as the page shows it
ENTRY = "toy = toy_kind:KIND"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution for this process and for its workers: a module, and the metadata that pip would write."""

    def add(code: str = TOY_KIND, entry: str = ENTRY, distribution: str = "toy-kind") -> None:
        site = tmp_path / "site"
        metadata = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry}\n")
        (site / "toy_kind.py").write_text(code)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
            monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
        forget()

    yield add
    forget()
    sys.modules.pop("toy_kind", None)


def forget() -> None:
    """Look for kinds again."""
    registry.find.cache_clear()
    registry.registered.cache_clear()
    schema.schema_text.cache_clear()


@pytest.fixture
def toy(sandbox: Sandbox, install: Install) -> Sandbox:
    """A project with a builder of the toy kind, started by `modelwright new`."""
    install()
    result = sandbox.cli("new", "twice", "--kind", "toy")
    assert result.exit_code == 0, result.output
    return sandbox


def doctor_rows(sandbox: Sandbox) -> dict[str, Row]:
    given = Machine(sandbox.root, run=answers({}), interpreters=lambda *_: ([INTERPRETER], []))
    return {row.what: row for row in examine(given)}


# --- a plug-in --------------------------------------------------------------------------------------------------------


def test_a_kind_in_one_file_is_scaffolded_built_published_and_linted(toy: Sandbox) -> None:
    outcome = toy.build("twice")["twice"]
    assert (outcome.status, outcome.version, outcome.error) == ("new", 1, None)
    assert outcome.compared_with is ComparedWith.SOURCE
    assert {step.step for step in toy.manifest("twice").lineage} == {"samples", "multiply", "verify"}
    assert 'backend: "onnxruntime"' in toy.config("twice")
    assert toy.cli("lint").exit_code == 0
    assert toy.build("twice")["twice"].status == "unchanged"


def test_its_source_decides_what_is_built_again(toy: Sandbox) -> None:
    toy.build()
    file = toy.root / "builders/twice/model.yaml"
    file.write_text(file.read_text().replace("factor: 2.0", "factor: 3.0"))
    assert "multiply: factor 2.0 → 3.0" in toy.cli("plan").output


@pytest.mark.server
def test_its_models_are_served(toy: Sandbox) -> None:
    shared_environment()
    toy.build()
    result = toy.cli("verify", "twice", "--json")
    assert result.exit_code == 0, result.output
    assert {entry["verdict"] for entry in json.loads(result.output)} == {"ok"}


def test_the_commands_know_it(toy: Sandbox) -> None:
    assert "toy          a number" in toy.cli("new", "--help").output
    written = json.loads((toy.root / schema.PLACE).read_text())
    assert written["$defs"]["ToySource"]["properties"]["factor"]["type"] == "number"
    rows = doctor_rows(toy)
    assert (rows["kind toy"].state, rows["kind toy"].detail) == ("ok", "toy-kind 1.0")
    assert (rows["toy models"].state, rows["toy models"].needed) == ("ok", True)


def test_a_project_with_it_has_no_stamp(toy: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code decides on steps, and may lie anywhere: such a project is looked at closely each time."""
    stamped: list[int] = []
    monkeypatch.setattr("modelwright.build.stamp.write", lambda project, names, models, *_: stamped.append(models))
    toy.onnx_builder()
    toy.build()
    assert {outcome.status for outcome in toy.build().values()} == {"unchanged"}
    assert stamped == []
    toy.build("doubled")
    assert stamped == [1]


@pytest.mark.parametrize(
    ("written", "where", "hint"),
    [
        ("{kind: toyy}", "source.kind: unknown kind 'toyy'", "did you mean 'toy'?"),
        (
            "{factor: 2}",
            "source.kind: missing",
            "one of alias, ensemble, huggingface, ",
        ),
        ("{kind: 3}", "source.kind: must be the name of a kind, got 3", "torch"),
        ("{kind: toy, factr: 2}", "source.factr: unknown field", "did you mean 'factor'?"),
        ("{kind: toy, factor: two}", "source.factor: ", ""),
        ("toy", "source: must be a mapping", ""),
    ],
)
def test_mistakes_in_its_model_yaml_are_named(toy: Sandbox, written: str, where: str, hint: str) -> None:
    (toy.root / "builders/twice/model.yaml").write_text(f"name: twice\nsource: {written}\nsamples: data:samples\n")
    output = toy.error("build")
    assert f"builders/twice/model.yaml:2: {where}" in output
    assert hint in output


def test_a_module_that_it_needs_and_that_is_missing_is_named_with_what_installs_it(
    sandbox: Sandbox, install: Install
) -> None:
    install(TOY_KIND.replace('modules=("onnx",)', 'modules=("no_such_module",)'))
    assert "pip install 'toy-kind[onnx]'" in sandbox.cli("new", "twice", "--kind", "toy").output
    output = sandbox.error("build")
    assert "source.kind toy needs no_such_module: not installed" in output
    assert "pip install 'toy-kind[onnx]'" in output
    row = doctor_rows(sandbox)["toy models"]
    assert (row.state, row.fix) == ("missing", "pip install 'toy-kind[onnx]'")


# --- plug-ins that are broken -----------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[str, str, str]] = {
    "a failing import": ("import no_such_module", ENTRY, "toy_kind:KIND cannot be imported: ModuleNotFoundError"),
    "an exit": ("raise SystemExit(3)", ENTRY, "toy_kind:KIND cannot be imported: SystemExit"),
    "no such attribute": ("", ENTRY, "toy_kind:KIND cannot be imported: AttributeError"),
    "no kind": ("KIND = {}", ENTRY, "toy_kind:KIND is a dict, not a Kind"),
    "another name": (TOY_KIND, "toy2 = toy_kind:KIND", "toy_kind:KIND has another name, 'toy'"),
    "a taken name": (TOY_KIND, "onnx = toy_kind:KIND", "'onnx' is the name of a kind of Modelwright"),
    "no source": (TOY_KIND.replace("source=ToySource", "source=dict"), ENTRY, "its source is no SourceSpec"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plug_in_names_its_distribution_and_stops_no_other_kind(
    sandbox: Sandbox, install: Install, case: str
) -> None:
    code, entry, reason = BROKEN[case]
    install(code, entry)
    name = entry.partition(" ")[0]
    sandbox.onnx_builder()
    assert sandbox.cli("plan").exit_code == 0
    assert sandbox.cli("new", "edges", "--kind", "onnx").exit_code == 0
    row = doctor_rows(sandbox)["kind"]
    assert row.state == "broken"
    assert row.detail.startswith(f"source kind '{name}' of toy-kind 1.0: {reason}")
    assert row.fix == "update it, or remove it: pip uninstall toy-kind"


def test_a_builder_of_a_broken_kind_says_what_is_broken(sandbox: Sandbox, install: Install) -> None:
    install("import no_such_module")
    sandbox.write("twice", model_yaml="name: twice\nsource: {kind: toy, factor: 2}\n")
    output = sandbox.error("build")
    assert "builders/twice/model.yaml:2: source.kind: source kind 'toy' of toy-kind 1.0: toy_kind:KIND" in output
    assert "pip uninstall toy-kind" in output


def test_two_distributions_with_a_kind_of_one_name_are_both_named(install: Install) -> None:
    install()
    install(distribution="other-toys")
    with pytest.raises(KindError, match=r"of .*: two distributions have a kind of this name") as caught:
        registry.find("toy")
    assert {"toy-kind 1.0", "other-toys 1.0"} <= {part.strip("':") for part in _names(caught.value.message)}


def _names(message: str) -> list[str]:
    return message.partition(" of ")[2].partition(":")[0].split(" and ")


# --- the shipped kinds ------------------------------------------------------------------------------------------------


def test_every_shipped_kind_has_the_name_of_its_module() -> None:
    known = registry.registered()
    shipped = {name: kind for name, kind in known.kinds.items() if name not in known.distributions}
    assert {"alias", "ensemble", "huggingface", "onnx", "prebuilt", "python", "router", "torch"} <= set(shipped)
    for name, kind in shipped.items():
        assert kind.name == name
        assert kind.is_built_in
        assert kind.source.model_fields["kind"].annotation.__args__ == (name,)


def test_names_and_revisions_of_step_functions_stand_in_keys() -> None:
    """Raise a revision here when the function makes something else; a name never changes."""
    assert {function.name: function.revision for function in _step_functions()} == {
        "samples": 1, "torch": 1, "onnx": 2, "huggingface": 2, "onnx_file": 2, "python": 1, "ensemble": 1, "prebuilt": 1,
        "verify": 4, "verify_served": 4, "verify_prebuilt": 1, "baseline": 1, "verify_variant": 1, "verify_alias": 1,
        "fetch": 1, "verify_calls": 1, "router": 1, "verify_router": 1, "pipeline": 1,
        "estimator": 1, "estimator_onnx": 1,
        "torchscript": 1, "torchscript_file": 1, "verify_torchscript": 1, "pt2": 1, "torchserve": 1,
        "verify_torchserve": 1,
        "keras": 1, "tensorflow": 1, "tf_serving": 1, "verify_numbered": 1,
        "mlflow_python": 1,
    }  # fmt: skip


def test_every_step_function_is_there_and_loads_no_framework() -> None:
    references = [function.reference for function in _step_functions()]
    code = (
        "import sys; from modelwright.kinds.step import StepFunction\n"
        f"for reference in {references!r}: assert callable(StepFunction('x', reference).load())\n"
        "assert not {'torch', 'onnx', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _step_functions() -> list[StepFunction]:
    registry.registered()
    from modelwright.variants import chain, model_steps

    modules = [module for name, module in sys.modules.items() if name.startswith("modelwright.kinds.")]
    modules += [chain, model_steps]
    return [value for module in modules for value in vars(module).values() if isinstance(value, StepFunction)]


def test_a_plan_loads_the_kinds_in_use_and_no_entry_points(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    code = (
        "import sys, json, importlib.metadata\nfrom click.testing import CliRunner\n"
        "def scan(group):\n"
        f"    assert group != {registry.GROUP!r}\n"
        "    return ()  # pydantic looks for plug-ins of its own\n"
        "importlib.metadata.entry_points = scan\n"
        "from modelwright.cli.main import main\n"
        f"result = CliRunner().invoke(main, ['--project', {str(sandbox.root)!r}, 'plan'])\n"
        "kinds = [name.rpartition('.')[2] for name in sys.modules if name.startswith('modelwright.kinds.')]\n"
        "print(json.dumps([result.exit_code, kinds]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, loaded = json.loads(done.stdout)
    assert exit_code == 0
    assert set(loaded) & {"alias", "ensemble", "huggingface", "onnx", "prebuilt", "python", "router", "torch"} == {
        "onnx"
    }


# --- nothing else tells kinds apart -----------------------------------------------------------------------------------

_KIND_FREE = [
    path
    for path in sorted((ROOT / "modelwright").rglob("*.py"))
    if path.relative_to(ROOT / "modelwright").parts[0] not in ("kinds", "steps")
]


def _telling_kinds_apart(tree: ast.AST) -> Iterator[str]:
    """What only kinds/ and steps/ may do: name the source of one kind, or ask for a kind by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelwright.kinds."):
            yield from (f"imports {name.name}" for name in node.names if name.name.endswith("Source"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            yield from ("isinstance(…Source)" for part in node.args[1:] if ast.unparse(part).endswith("Source"))
        elif isinstance(node, ast.Compare):
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            yield from (f"compares {side}" for side in sides if side.endswith(("source.kind", "kind.name")))
        elif isinstance(node, ast.Subscript) and ast.unparse(node.slice).endswith("source.kind"):
            yield f"looks up {ast.unparse(node)}"


@pytest.mark.parametrize("path", _KIND_FREE, ids=lambda path: path.relative_to(ROOT / "modelwright").as_posix())
def test_nothing_outside_of_kinds_and_steps_tells_kinds_apart(path: Path) -> None:
    assert list(_telling_kinds_apart(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "from modelwright.kinds.onnx import OnnxSource",
        "isinstance(spec.source, OnnxSource)",
        "builder.spec.source.kind == 'onnx'",
        "spec.source.kind in ('onnx', 'torch')",
        "BACKENDS[source.kind]",
        "kind_of(builder).kind.name == 'onnx'",
    ],
)
def test_what_tells_kinds_apart_is_seen(code: str) -> None:
    assert list(_telling_kinds_apart(ast.parse(code)))


def test_the_record_imports_no_step() -> None:
    tree = ast.parse(Path(str(kind_module.__file__)).read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.startswith("modelwright.steps")]

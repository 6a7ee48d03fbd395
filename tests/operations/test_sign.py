"""Signed versions: by the build, by `sign` for those before, refused where the project requires it; and `sbom`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from modelwright.errors import SigningError
from modelwright.operations.fsck import fsck
from modelwright.repository.repository import Change, Repository
from modelwright.repository.signing import Verdict, check
from modelwright.triton.layout import SBOM, SIGNATURE
from tests.conftest import ONNX_YAML, Sandbox
from tests.repository.keys import write_pair

SIGNING = """
[signing]
required = true
private_key = "env:SIGNING_KEY"
public_key = "keys/key.pub"
"""


@pytest.fixture
def signed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A project that requires signatures, with a model."""
    write_pair(sandbox.root / "keys")
    monkeypatch.setenv("SIGNING_KEY", (sandbox.root / "keys/key.pem").read_text())
    file = sandbox.root / "modelwright.toml"
    file.write_text(file.read_text() + SIGNING)
    sandbox.onnx_builder()
    return sandbox


def folder(sandbox: Sandbox, version: int = 1) -> Path:
    return sandbox.repository.folder("doubled", version)


def test_a_build_signs_what_it_publishes(signed: Sandbox) -> None:
    assert signed.build()["doubled"].error is None
    assert check(folder(signed), signed.project.signing) is Verdict.SIGNED
    assert signed.repository.damage("doubled", 1) == []
    assert fsck(signed.project, say=lambda text: None).damages == ()


def test_without_the_key_nothing_is_published(signed: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGNING_KEY")
    assert "private_key: env:SIGNING_KEY: the variable is not set" in signed.error("build")
    assert not signed.repository.journal.file.exists()
    monkeypatch.setenv("SIGNING_KEY", (signed.root / "keys/key.pem").read_text())
    assert signed.build()["doubled"].version == 1


def test_where_signatures_are_not_required_a_build_without_the_key_says_so(
    signed: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIGNING_KEY")
    file = signed.root / "modelwright.toml"
    file.write_text(file.read_text().replace("required = true", "required = false"))
    outcome = signed.build()["doubled"]
    assert outcome.version == 1
    assert outcome.warnings == ("doubled: published unsigned: env:SIGNING_KEY is not here",)


def test_a_version_from_elsewhere_is_refused_without_a_signature(signed: Sandbox, tmp_path: Path) -> None:
    signed.build()
    manifest = signed.manifest("doubled").model_copy(update={"version": 2})
    files = {name: folder(signed) / name for name in manifest.files}
    change = Change("doubled", 2, files, manifest)
    with pytest.raises(SigningError, match="doubled/2: is not signed"):
        Repository.of(signed.project).publish(change)
    assert signed.repository.versions("doubled") == [1]


def test_any_change_of_a_signed_version_shows(signed: Sandbox) -> None:
    signed.build()
    path = folder(signed) / SIGNATURE
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        damages = fsck(signed.project, say=lambda text: None).damages
        assert path in {damage.place for damage in damages}
    path.unlink()
    assert signed.cli("fsck").exit_code == 1
    assert fsck(signed.project, repair=True, say=lambda text: None).damages == ()
    assert path.read_bytes() == whole


def test_versions_from_before_are_signed_on_request(signed: Sandbox) -> None:
    file = signed.root / "modelwright.toml"
    with_signing = file.read_text()
    file.write_text(with_signing.replace(SIGNING, ""))
    signed.build()
    signed.onnx_builder("doubled", ONNX_YAML, 2.001)
    signed.build()
    file.write_text(with_signing)
    result = signed.cli("fsck")
    assert "model_repository/doubled/1/model.sig: the version is not signed" in result.output
    assert "hint: sign it: modelwright sign doubled 1" in result.output
    assert signed.cli("sign", "doubled", "1").output == "doubled: version 1 is signed now\n"
    result = signed.cli("sign", "-m", "the key is new")
    assert result.output == "doubled: version 1 was signed before\ndoubled: version 2 is signed now\n"
    assert check(folder(signed, 2), signed.project.signing) is Verdict.SIGNED
    assert signed.cli("fsck").exit_code == 0
    last = list(signed.repository.journal.events())[-1]
    assert (last.what, last.version, last.why) == ("sign", 2, "the key is new")


def test_a_damaged_version_is_not_signed(signed: Sandbox) -> None:
    signed.build()
    (folder(signed) / "model.onnx").write_bytes(b"other")
    output = signed.cli("sign", "doubled", "--again").output
    assert (
        "Error: doubled: version 1: model.onnx changed\n  hint: find out what is wrong, and repair it first" in output
    )


def test_another_signer_is_named(signed: Sandbox) -> None:
    signed.build()
    write_pair(signed.root / "keys", "other")
    settings = replace(signed.project.signing, public_key=signed.root / "keys/other.pub")
    with pytest.raises(SigningError, match=r"doubled/1: model\.sig: was made with another key than"):
        check(folder(signed), settings)


def test_sbom_prints_what_a_version_is_made_of(signed: Sandbox) -> None:
    signed.build()
    published = (folder(signed) / SBOM).read_text()
    assert signed.cli("sbom", "doubled").output == published
    found = json.loads(published)
    assert found["metadata"]["component"]["name"] == "doubled"
    assert "model.onnx" in {component["name"] for component in found["components"]}
    assert "there is no version 7" in signed.error("sbom", "doubled", "7")

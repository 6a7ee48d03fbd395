"""Signatures of versions: the stock verifier accepts them, and whatever does not fit is said in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sigstore.errors import TUFError
from sigstore.models import ClientTrustConfig

from modelwright.errors import ProjectError, SigningError
from modelwright.project.project import FILE
from modelwright.project.signing import Signing, read_signing
from modelwright.repository import signing
from modelwright.repository.signing import Verdict, check, check_key, sign
from modelwright.triton.layout import SIGNATURE
from tests.repository.keys import write_certificates, write_pair


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "model_repository" / "digits" / "3"
    (folder / "site-packages").mkdir(parents=True)
    for name in ("model.onnx", "manifest.json", ".gitignore", "site-packages/x.py"):
        (folder / name).write_text(f"{name} {'x' * 50}")
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    write_certificates(folder, write_pair(folder))
    write_pair(folder, "other")
    write_pair(folder, "secret", "pass")
    return folder


@pytest.fixture
def settings(keys: Path) -> Signing:
    return Signing(required=True, private_key=str(keys / "key.pem"), public_key=keys / "key.pub")


def by_certificate(keys: Path) -> Signing:
    chain = (keys / "intermediate.crt", keys / "root.crt")
    return Signing(private_key=str(keys / "key.pem"), certificate=keys / "signer.crt", certificate_chain=chain)


def stock(version: Path, way: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The verifier of OpenSSF Model Signing, as anybody runs it."""
    command = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        way,
        version.name,
        f"--signature={version.name}/{SIGNATURE}",
    ]
    return subprocess.run([*command, *options], cwd=version.parent, capture_output=True, text=True, check=False)


def test_the_stock_verifier_accepts_it_and_refuses_a_changed_byte(version: Path, settings: Signing) -> None:
    (version / ".gitignore").unlink()  # which the stock verifier passes over unless it is told not to
    sign(version, settings)
    option = f"--public_key={settings.public_key}"
    accepted = stock(version, "key", option)
    assert (accepted.returncode, accepted.stdout) == (0, "Verification succeeded\n")
    (version / "site-packages/x.py").write_text("other")
    refused = stock(version, "key", option)
    assert refused.returncode == 1
    assert "Hash mismatch" in refused.stderr
    assert "site-packages/x.py" in refused.stderr


def test_the_stock_verifier_accepts_a_certificate(version: Path, keys: Path) -> None:
    sign(version, by_certificate(keys))
    root = f"--certificate_chain={keys / 'root.crt'}"
    assert stock(version, "certificate", root, "--no-ignore-git-paths").returncode == 0
    assert check(version, by_certificate(keys)) is Verdict.SIGNED


def test_every_file_is_covered(version: Path, settings: Signing) -> None:
    sign(version, settings)
    assert check(version, settings) is Verdict.SIGNED
    (version / ".gitignore").write_text("*")
    (version / "added").write_text("")
    (version / "manifest.json").unlink()
    with pytest.raises(
        SigningError, match=r"digits/3: is not what was signed: manifest.json missing, added added, \.gitignore changed"
    ):
        check(version, settings)


@pytest.mark.parametrize("way", ["key", "certificate"])
def test_a_flipped_bit_in_the_signature_shows(version: Path, settings: Signing, keys: Path, way: str) -> None:
    """Of each part of it: with all its bits this takes a minute (and all of them show)."""
    how = settings if way == "key" else by_certificate(keys)
    sign(version, how)
    whole = (version / SIGNATURE).read_bytes()
    last_of_base64 = [place - 1 for place in range(len(whole)) if whole[place : place + 1] == b"="]  # spare bits
    for place in {*range(0, len(whole), 97), *last_of_base64}:
        (version / SIGNATURE).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SigningError, match=r"digits/3: model\.sig"):
            check(version, how)


def test_the_public_key_follows_from_the_private_one(version: Path, settings: Signing) -> None:
    sign(version, settings)
    assert check(version, replace(settings, public_key=None)) is Verdict.SIGNED


def test_an_unsigned_version_is_refused_where_signatures_are_required(version: Path, settings: Signing) -> None:
    assert check(version, replace(settings, required=False)) is Verdict.UNSIGNED
    with pytest.raises(SigningError, match=r"digits/3: is not signed, and modelwright\.toml says") as caught:
        check(version, settings)
    assert caught.value.hint == "sign it: modelwright sign digits 3"


def test_a_signature_that_nothing_can_check_is_said_to_be_unchecked(version: Path, settings: Signing) -> None:
    sign(version, settings)
    assert check(version, Signing()) is Verdict.NOT_CHECKED


def test_another_signer(version: Path, settings: Signing, keys: Path) -> None:
    sign(version, replace(settings, private_key=str(keys / "other.pem")))
    with pytest.raises(SigningError, match=r"digits/3: model\.sig: was made with another key than .*key\.pub"):
        check(version, settings)
    with pytest.raises(SigningError, match=r"digits/3: model\.sig: damaged"):
        check(version, by_certificate(keys))


def test_a_certificate_of_another_authority(version: Path, keys: Path) -> None:
    sign(version, by_certificate(keys))
    write_certificates(keys / "elsewhere", write_pair(keys / "elsewhere"))
    others = replace(by_certificate(keys), certificate_chain=(keys / "elsewhere/root.crt",))
    with pytest.raises(SigningError, match="its certificate is not trusted"):
        check(version, others)


def test_keys_from_the_environment(
    version: Path, settings: Signing, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", (keys / "secret.pem").read_text())
    monkeypatch.setenv("PASS", "pass")
    how = replace(settings, private_key="env:KEY", passphrase="env:PASS", public_key=keys / "secret.pub")
    assert how.signs_here
    sign(version, how)
    assert check(version, how) is Verdict.SIGNED


Broken = Callable[[Signing, Path], Signing]
BROKEN: dict[str, tuple[Broken, str, str]] = {
    "no key": (lambda good, keys: replace(good, private_key=""), "private_key: is needed to sign", "env:MODELWRIGHT_KEY"),
    "an unset variable": (
        lambda good, keys: replace(good, private_key="env:UNSET"),
        "env:UNSET: the variable is not set",
        'export UNSET="',
    ),
    "no such file": (lambda good, keys: replace(good, private_key=str(keys / "none.pem")), "No such file", "openssl ecparam"),
    "no key in the file": (
        lambda good, keys: replace(good, private_key=str(keys / "key.pub")),
        "is no private key",
        "openssl ecparam",
    ),
    "a passphrase is missing": (
        lambda good, keys: replace(good, private_key=str(keys / "secret.pem")),
        "is encrypted",
        "env:MODELWRIGHT_PASSPHRASE",
    ),
    "a wrong passphrase": (
        lambda good, keys: replace(good, private_key=str(keys / "secret.pem"), passphrase="env:PATH"),
        "wrong passphrase",
        "openssl ecparam",
    ),
    "a passphrase for nothing": (
        lambda good, keys: replace(good, passphrase="env:PATH"),
        "is not encrypted",
        "remove signing.passphrase",
    ),
    "the variable of the passphrase": (
        lambda good, keys: replace(good, passphrase="env:UNSET"),
        "passphrase: env:UNSET: the variable is not set",
        "export UNSET=",
    ),
    "the certificate of another key": (
        lambda good, keys: replace(by_certificate(keys), certificate=keys / "root.crt"),
        r"root\.crt: The public key from the certificate does not match",
        "of this private key",
    ),
    "no certificate": (
        lambda good, keys: replace(by_certificate(keys), certificate=None),
        "certificate: is needed beside private_key",
        "PEM file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_key_that_does_not_sign(version: Path, settings: Signing, keys: Path, name: str) -> None:
    broken, message, hint = BROKEN[name]
    for use in (lambda how: sign(version, how), check_key):
        with pytest.raises(SigningError, match=message) as caught:
            use(broken(settings, keys))
        assert hint in caught.value.hint
    assert not (version / SIGNATURE).exists()


@pytest.mark.parametrize(
    ("file", "message"), [("none.pub", "No such file"), ("root.crt", "is no public key")], ids=["none", "a certificate"]
)
def test_a_public_key_that_does_not_check(
    version: Path, settings: Signing, keys: Path, file: str, message: str
) -> None:
    sign(version, settings)
    with pytest.raises(SigningError, match=f"signing.public_key: .*{message}"):
        check(version, replace(settings, public_key=keys / file))


def test_a_missing_package_is_named(version: Path, settings: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    with pytest.raises(SigningError, match="model-signing, which is not installed") as caught:
        sign(version, settings)
    assert caught.value.hint == "pip install 'modelwright[signing]'"


def test_keyless_without_a_network_says_what_it_needs(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise TUFError("Failed to refresh TUF metadata")

    monkeypatch.setattr(ClientTrustConfig, "production", unreachable)
    keyless = Signing(identity="ci@example.com", issuer="https://accounts.google.com")
    (version / SIGNATURE).write_text("{}")
    for use in (lambda: sign(version, keyless), lambda: check(version, keyless)):
        with pytest.raises(SigningError, match="Sigstore: Failed to refresh TUF metadata") as caught:
            use()
        assert "need the network" in caught.value.hint


# --- modelwright.toml -------------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_project(tmp_path: Path) -> None:
    table = {"private_key": "k.pem", "certificate": "s.crt", "certificate_chain": ["ca.crt"]}
    found = read_signing(table, tmp_path, FILE)
    assert (found.private_key, found.certificate) == (str(tmp_path / "k.pem"), tmp_path / "s.crt")
    assert found.certificate_chain == (tmp_path / "ca.crt",)
    assert (found.method, found.signs, found.signs_here) == ("certificate", True, False)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param("yes", "signing: a table is needed", id="no table"),
        pytest.param(
            {"public_kye": "x"}, "signing.public_kye: unknown field\n  hint: did you mean 'public_key'", id="misspelt"
        ),
        pytest.param({"required": "yes"}, "signing.required: true or false is needed, got 'yes'", id="no boolean"),
        pytest.param(
            {"required": True}, "signing.required: nothing says how versions are signed", id="nothing to sign with"
        ),
        pytest.param({"private_key": 3}, "signing.private_key: a text is needed, got 3", id="no text"),
        pytest.param({"private_key": " "}, "signing.private_key: a text is needed, got ' '", id="blank"),
        pytest.param(
            {"passphrase": "hush"}, "signing.passphrase: the name of a variable is needed", id="a secret in the file"
        ),
        pytest.param(
            {"identity": "a@b.c"}, "signing.issuer: keyless signing needs identity and issuer", id="no issuer"
        ),
        pytest.param(
            {"public_key": "k", "certificate_chain": ["c"]},
            "public_key and certificate exclude one another",
            id="two ways",
        ),
        pytest.param(
            {"private_key": "k", "identity": "a", "issuer": "b"},
            "private_key and identity exclude one another",
            id="keyless with a key",
        ),
        pytest.param({"certificate_chain": "c"}, "signing.certificate_chain: a list of files is needed", id="no list"),
        pytest.param({"certificate": "c"}, "signing.certificate_chain: is needed beside certificate", id="no chain"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, table: object, message: str) -> None:
    with pytest.raises(ProjectError) as caught:
        read_signing(table, tmp_path, FILE)
    assert str(caught.value).startswith(f"{FILE}: ")
    assert message in str(caught.value)

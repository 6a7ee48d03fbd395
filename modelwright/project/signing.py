"""`[signing]` of modelwright.toml: whether versions are signed, by whom, and how that is checked.

    [signing]
    required = true                          # what is not signed is not published, rolled out or pulled
    private_key = "env:MODELWRIGHT_KEY"      # the PEM in a variable of the environment, or a file; only where versions
    passphrase = "env:MODELWRIGHT_PASSPHRASE"    # are signed
    public_key = "keys/modelwright.pub"      # where they are checked

    certificate = "keys/signer.crt"          # instead of public_key: the signer's certificate,
    certificate_chain = ["keys/ca.crt"]      # and those above it, up to one that is trusted

    identity = "ci@example.com"              # instead of all of these: keyless, by Sigstore
    issuer = "https://accounts.google.com"

The three ways are those of OpenSSF Model Signing, so that `python -m model_signing verify` checks what is signed here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from modelwright.errors import ProjectError
from modelwright.suggest import did_you_mean

Method: TypeAlias = Literal["key", "certificate", "keyless"]
ENVIRONMENT = "env:"
_HINT = 'write: [signing] and private_key = "env:MODELWRIGHT_KEY", public_key = "keys/modelwright.pub"'
_TEXTS = ("private_key", "passphrase", "public_key", "certificate", "identity", "issuer")


@dataclass(frozen=True)
class Signing:
    required: bool = False
    private_key: str = ""  # "env:NAME", or a path; "" where nothing is signed
    passphrase: str = ""  # "env:NAME"
    public_key: Path | None = None
    certificate: Path | None = None  # of the signer
    certificate_chain: tuple[Path, ...] = ()  # above it, the trusted one last
    identity: str = ""  # of a keyless signer: an e-mail address, or the URL of a workflow
    issuer: str = ""  # that vouches for it

    @property
    def method(self) -> Method:
        if self.identity:
            return "keyless"
        return "certificate" if self.certificate or self.certificate_chain else "key"

    @property
    def signs(self) -> bool:
        """Whether the project says how a version is signed."""
        return bool(self.private_key or self.identity)

    @property
    def checks(self) -> bool:
        """Whether the project says by what a signature is checked."""
        return bool(self.public_key or self.private_key or self.certificate_chain or self.identity)

    @property
    def signs_here(self) -> bool:
        """Whether what it takes to sign is on this machine: many may build, and few may sign."""
        if self.private_key.startswith(ENVIRONMENT):
            return self.private_key.removeprefix(ENVIRONMENT) in os.environ
        return bool(self.identity) or (bool(self.private_key) and Path(self.private_key).is_file())


def read_signing(table: Any, root: Path, file: str) -> Signing:
    """`[signing]`, as modelwright.toml has it. Raises ProjectError naming the field."""
    if not isinstance(table, dict):
        raise ProjectError(f"{file}: signing: a table is needed", _HINT)
    known = ("required", *_TEXTS, "certificate_chain")
    for name in table:
        if name not in known:
            raise ProjectError(f"{file}: signing.{name}: unknown field", did_you_mean(name, known))
    required, chain = table.get("required", False), table.get("certificate_chain", [])
    if type(required) is not bool:
        raise ProjectError(f"{file}: signing.required: true or false is needed, got {required!r}")
    if not isinstance(chain, list) or not all(isinstance(item, str) and item for item in chain):
        hint = 'write: certificate_chain = ["keys/intermediate.crt", "keys/ca.crt"]'
        raise ProjectError(f"{file}: signing.certificate_chain: a list of files is needed", hint)
    texts = {name: table.get(name, "") for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str) or (name in table and not text.strip()):
            raise ProjectError(f"{file}: signing.{name}: a text is needed, got {text!r}", _HINT)
    _check_together(texts, chain, required, file)
    key = texts["private_key"]
    return Signing(
        required=required,
        private_key=key if key.startswith(ENVIRONMENT) or not key else str(root / key),
        passphrase=texts["passphrase"],
        public_key=root / texts["public_key"] if texts["public_key"] else None,
        certificate=root / texts["certificate"] if texts["certificate"] else None,
        certificate_chain=tuple(root / name for name in chain),
        identity=texts["identity"],
        issuer=texts["issuer"],
    )


def _check_together(texts: dict[str, str], chain: list[str], required: bool, file: str) -> None:
    """Which fields exclude or need one another."""
    if texts["passphrase"] and not texts["passphrase"].startswith(ENVIRONMENT):
        hint = 'keep it out of the file: passphrase = "env:MODELWRIGHT_PASSPHRASE"'
        raise ProjectError(f"{file}: signing.passphrase: the name of a variable is needed", hint)
    if bool(texts["identity"]) != bool(texts["issuer"]):
        missing = "issuer" if texts["identity"] else "identity"
        raise ProjectError(f"{file}: signing.{missing}: keyless signing needs identity and issuer", _HINT)
    ways = {
        "public_key": bool(texts["public_key"]),
        "certificate": bool(texts["certificate"] or chain),
        "identity": bool(texts["identity"]),
    }
    given = [name for name, there in ways.items() if there]
    if len(given) > 1 or (texts["identity"] and texts["private_key"]):
        both = given if len(given) > 1 else ["private_key", "identity"]
        hint = "a signature is checked in one way: keep one of them"
        raise ProjectError(f"{file}: signing: {' and '.join(both)} exclude one another", hint)
    if texts["certificate"] and not chain:
        hint = 'write the certificates above it: certificate_chain = ["keys/ca.crt"]'
        raise ProjectError(f"{file}: signing.certificate_chain: is needed beside certificate", hint)
    if required and not given and not texts["private_key"]:
        raise ProjectError(f"{file}: signing.required: nothing says how versions are signed", _HINT)

"""Signatures of versions, by OpenSSF Model Signing: `N/model.sig` covers every other file of version N.

    sign(folder, project.signing)                   # writes model.sig
    check(folder, project.signing, "digits/3")      # raises SigningError for one that does not fit

The file is a Sigstore bundle, which the stock verifier checks: `python -m model_signing verify key N --signature
N/model.sig --public_key …`. A signature says who made a version; the manifest, which it covers, says which version.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import os
from collections.abc import Iterator
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelwright.digest import list_tree, parse_json, sha256_file
from modelwright.errors import SigningError, one_line
from modelwright.fsops import read_file
from modelwright.project.project import FILE
from modelwright.project.signing import Signing
from modelwright.repository.signing_keys import certificates, in_memory, private_key_pem, public_key
from modelwright.triton.layout import SIGNATURE

INSTALL = "pip install 'modelwright[signing]'"
_BASE64 = ("payload", "sig", "rawBytes")  # fields of a bundle


class Verdict(Enum):
    SIGNED = "signed"
    UNSIGNED = "not signed"
    NOT_CHECKED = "signed, not checked"  # the project does not say by what


def is_required(settings: Signing, name: str) -> SigningError:
    """The error for an unsigned version of a project whose versions must be signed. `name` is "digits/3"."""
    hint = f"sign it: modelwright sign {name.replace('/', ' ')}"
    if not settings.signs:
        hint = f"sign it where the private key is: modelwright sign {name.replace('/', ' ')}"
    return SigningError(f"{name}: is not signed, and {FILE} says [signing] required = true", hint)


def sign(folder: Path, settings: Signing) -> None:
    """Write `folder`/model.sig, which covers all other files in it. Raises SigningError; nothing is written then."""
    sign_into(folder, folder / SIGNATURE, settings)


def sign_into(folder: Path, signature: Path, settings: Signing) -> None:
    """Write a folder's signature to another place."""
    check_installed()
    from model_signing import signing

    config = signing.Config().set_hashing_config(_everything())
    with _signer(config, settings):
        config.sign(folder, signature)


def check(folder: Path, settings: Signing, name: str = "") -> Verdict:
    """Whether a version is as its signer left it. `name` stands in messages: "digits/3".

    Raises SigningError for a signature that does not fit or is another signer's, and for none where the project
    requires one. Reads every file.
    """
    name = name or f"{folder.parent.name}/{folder.name}"
    if not (folder / SIGNATURE).is_file():
        if settings.required:
            raise is_required(settings, name)
        return Verdict.UNSIGNED
    if not settings.checks:
        return Verdict.NOT_CHECKED
    check_installed()
    _verify(folder, settings, name)
    return Verdict.SIGNED


def check_installed() -> None:
    """Raises SigningError, which says what to install."""
    missing = [module for module in ("model_signing", "OpenSSL") if find_spec(module) is None]
    if missing:
        raise SigningError("signatures need the package model-signing, which is not installed", INSTALL)


def check_key(settings: Signing) -> None:
    """Raises SigningError where a version could not be signed here: no key, a wrong passphrase, a missing package."""
    check_installed()
    from model_signing import signing

    with _signer(signing.Config(), settings):
        pass


def check_verifier(settings: Signing) -> None:
    """Raises SigningError where no signature can be checked here: no public key, a missing package."""
    if settings.checks:
        check_installed()
        from model_signing import verifying

        with contextlib.ExitStack() as stack:
            _use_verifier(verifying.Config(), settings, stack)


def _everything() -> Any:
    """Every file but the signature. The library passes over .gitignore and the like unless it is told not to."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


# --- signing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _signer(config: Any, settings: Signing) -> Iterator[None]:
    """Give a `model_signing.signing.Config` its signer while the block runs."""
    if settings.method == "keyless":
        with _sigstore_errors():
            token = os.environ.get("SIGSTORE_ID_TOKEN")
            config.use_sigstore_signer(use_ambient_credentials=True, identity_token=token)
            yield
        return
    with in_memory(private_key_pem(settings)) as key:
        if settings.method == "certificate":
            _use_certificate(config, key, settings)
        else:
            config.use_elliptic_key_signer(private_key=key)
        yield


@contextlib.contextmanager
def _sigstore_errors() -> Iterator[None]:
    """Sigstore asks its servers for a certificate and a timestamp, and an identity provider who is signing."""
    import requests
    from sigstore.errors import Error
    from sigstore.oidc import IdentityError

    try:
        yield
    except (Error, IdentityError, requests.RequestException, ValueError) as error:
        hint = "keyless signatures need the network, and to sign an identity: run it in CI, or set SIGSTORE_ID_TOKEN"
        raise SigningError(f"{FILE}: signing: Sigstore: {one_line(error)}", hint) from error


def _use_certificate(config: Any, key: Path, settings: Signing) -> None:
    where = f"{FILE}: signing.certificate"
    if settings.certificate is None:
        raise SigningError(
            f"{where}: is needed beside private_key, to sign", "name the signer's certificate, a PEM file"
        )
    above = [path for path in settings.certificate_chain if not _is_root(path)]  # a verifier has its own roots
    try:
        config.use_certificate_signer(
            private_key=key, signing_certificate=settings.certificate, certificate_chain=above
        )
    except (OSError, ValueError) as error:
        hint = "the certificate must be of this private key: a PEM file"
        raise SigningError(f"{where}: {settings.certificate}: {one_line(error)}", hint) from None


def _is_root(path: Path) -> bool:
    """Whether a file holds one certificate, signed by itself."""
    found = certificates(path)
    return len(found) == 1 and found[0].issuer == found[0].subject


# --- checking ---------------------------------------------------------------------------------------------------------


def _verify(folder: Path, settings: Signing, name: str) -> None:
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying
    from OpenSSL.crypto import X509StoreContextError

    where = f"{name}: {SIGNATURE}"
    config = verifying.Config().set_hashing_config(_everything())
    with contextlib.ExitStack() as stack:
        _use_verifier(config, settings, stack)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))  # the library prints warnings
        try:
            config.verify(folder, folder / SIGNATURE)
            _check_written_as_usual(folder / SIGNATURE)
        except X509StoreContextError as error:
            hint = "it is another signer's; or the certificates above it are missing in signing.certificate_chain"
            raise SigningError(f"{where}: its certificate is not trusted: {one_line(error)}", hint) from None
        except InvalidSignature:
            raise SigningError(f"{where}: was changed after it was made", _restore(name)) from None
        except Exception as error:  # what parsing a damaged bundle or certificate raises is no closed set
            raise _mismatch(folder, settings, name, error) from error


def _mismatch(folder: Path, settings: Signing, name: str, error: Exception) -> SigningError:
    """What is wrong with a signature, in words."""
    text = one_line(error)
    if text.startswith("Key mismatch"):
        hint = "the version is another signer's: take it from whom you trust, or sign it yourself"
        return SigningError(f"{name}: {SIGNATURE}: was made with another key than {_shown_key(settings)}", hint)
    if text.startswith("Signature mismatch"):
        return SigningError(f"{name}: is not what was signed: {_differences(folder)}", _restore(name))
    return SigningError(f"{name}: {SIGNATURE}: damaged: {text}", _restore(name))


def _restore(name: str) -> str:
    return f"restore it: modelwright fsck {name.partition('/')[0]} --repair; or sign what is there: modelwright sign"


def _shown_key(settings: Signing) -> str:
    return str(settings.public_key or settings.private_key)


def _differences(folder: Path) -> str:
    """Which files a signature, which itself is valid, does not fit."""
    envelope = parse_json(read_file(folder / SIGNATURE))["dsseEnvelope"]
    statement = parse_json(base64.b64decode(envelope["payload"]))
    signed = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
    actual = {name: path for name, path in list_tree(folder).items() if name != SIGNATURE}
    found = [f"{name} missing" for name in signed if name not in actual]
    found += [f"{name} added" for name in actual if name not in signed]
    found += [f"{name} changed" for name in signed if name in actual and sha256_file(actual[name]) != signed[name]]
    return ", ".join(found)


def _check_written_as_usual(path: Path) -> None:
    """Base64 has bits that nothing depends on: one of them may have flipped, which a verifier does not see."""

    def visit(value: Any, field: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(inner, name)
        elif isinstance(value, list):
            for inner in value:
                visit(inner, field)
        elif field in _BASE64 and base64.b64encode(base64.b64decode(value)).decode() != value:
            raise ValueError(f"{field} is not written as Base64 is")

    with contextlib.suppress(binascii.Error):
        visit(parse_json(read_file(path)), "")


def _use_verifier(config: Any, settings: Signing, stack: contextlib.ExitStack) -> None:
    """Tell a `model_signing.verifying.Config` by what signatures are checked."""
    if settings.method == "keyless":
        stack.enter_context(_sigstore_errors())
        config.use_sigstore_verifier(identity=settings.identity, oidc_issuer=settings.issuer)
    elif settings.method == "certificate":
        # Those between come with the signature: then damage to them shows.
        roots = [path for path in settings.certificate_chain if _is_root(path)]
        config.use_certificate_verifier(certificate_chain=roots or settings.certificate_chain)
    else:
        config.use_elliptic_key_verifier(public_key=public_key(settings, stack))

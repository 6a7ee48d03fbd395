"""The keys and certificates of `[signing]`, read with messages that say what to do about one that does not fit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.errors import SigningError, one_line
from modelwright.project.project import FILE
from modelwright.project.signing import ENVIRONMENT, Signing

_MAKE_KEY = "make one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those of the standard: P-256, P-384, P-521


def certificates(path: Path) -> list[Any]:
    from cryptography import x509

    try:
        return list(x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise SigningError(f"{FILE}: signing.certificate_chain: {path}: {one_line(error)}", "name a PEM file") from None


def private_key_pem(settings: Signing) -> bytes:
    """The key that signs, without its passphrase: the certificate signer takes none that has one."""
    from cryptography.hazmat.primitives import serialization as form

    return bytes(_private_key(settings).private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))


def _private_key(settings: Signing) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = f"{FILE}: signing.private_key: {settings.private_key}"
    text, passphrase = _key_text(settings, where), _passphrase(settings)
    try:
        key = load_pem_private_key(text, passphrase)
    except TypeError:  # of a passphrase that is missing, or given for a key without one
        if passphrase is None:
            hint = 'give its passphrase: passphrase = "env:MODELWRIGHT_PASSPHRASE", and set that variable'
            raise SigningError(f"{where}: is encrypted", hint) from None
        raise SigningError(f"{where}: is not encrypted", "remove signing.passphrase") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        problem = "wrong passphrase, or damaged" if passphrase is not None else f"is no private key: {one_line(error)}"
        raise SigningError(f"{where}: {problem}", f"a PEM of an elliptic curve key is needed; {_MAKE_KEY}") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        kind = getattr(getattr(key, "curve", None), "name", type(key).__name__)
        hint = f"a key on the curve P-256, P-384 or P-521 is needed; {_MAKE_KEY}"
        raise SigningError(f"{where}: a key of another kind ({kind})", hint)
    return key


def _key_text(settings: Signing, where: str) -> bytes:
    if not settings.private_key:
        hint = 'write: [signing] and private_key = "env:MODELWRIGHT_KEY", or a file'
        raise SigningError(f"{FILE}: signing.private_key: is needed to sign", hint)
    if settings.private_key.startswith(ENVIRONMENT):
        name = settings.private_key.removeprefix(ENVIRONMENT)
        if not os.environ.get(name):
            raise SigningError(
                f"{where}: the variable is not set", f'set it to the key itself: export {name}="$(cat key.pem)"'
            )
        return os.environ[name].encode()
    try:
        return Path(settings.private_key).read_bytes()
    except OSError as error:
        raise SigningError(f"{where}: {error.strerror}", f"name the file that holds the key; {_MAKE_KEY}") from None


def _passphrase(settings: Signing) -> bytes | None:
    if not settings.passphrase:
        return None
    name = settings.passphrase.removeprefix(ENVIRONMENT)
    if name not in os.environ:
        raise SigningError(
            f"{FILE}: signing.passphrase: {settings.passphrase}: the variable is not set", f"export {name}=…"
        )
    return os.environ[name].encode()


@contextlib.contextmanager
def in_memory(data: bytes) -> Iterator[Path]:
    """A path that gives these bytes, which never reach a disk."""
    handle = os.memfd_create("key")
    try:
        os.write(handle, data)
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def public_key(settings: Signing, stack: contextlib.ExitStack) -> Path:
    """The file of the public key, or that of the private one where no other is named."""
    from cryptography.hazmat.primitives import serialization as form

    if settings.public_key is None:
        key = _private_key(settings).public_key()
        data = key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        return stack.enter_context(in_memory(data))
    where = f"{FILE}: signing.public_key: {settings.public_key}"
    hint = "name the PEM of the public key; write it: openssl ec -in key.pem -pubout -out key.pub"
    try:
        form.load_pem_public_key(settings.public_key.read_bytes())
    except OSError as error:
        raise SigningError(f"{where}: {error.strerror}", hint) from None
    except ValueError:
        raise SigningError(f"{where}: is no public key", hint) from None
    return settings.public_key

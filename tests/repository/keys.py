"""Keys and certificates for tests of signatures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

Key = ec.EllipticCurvePrivateKey


def private_pem(key: Any, passphrase: str = "") -> bytes:
    encryption: Any = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
    return bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, encryption))


def write_pair(folder: Path, name: str = "key", passphrase: str = "") -> Key:
    """`name`.pem and `name`.pub."""
    key = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pem").write_bytes(private_pem(key, passphrase))
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return key


def write_certificates(folder: Path, signer: Key) -> None:
    """signer.crt, with intermediate.crt and root.crt above it."""
    above: tuple[str, Key] | None = None
    for name, authority in (("root", True), ("intermediate", True), ("signer", False)):
        key = ec.generate_private_key(ec.SECP256R1()) if authority else signer
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer_name, issuer_key = above or (name, key)
        usage = {"key_cert_sign": authority, "crl_sign": authority, "digital_signature": not authority}
        others = (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer_name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(timezone.utc) - timedelta(hours=1))
            .not_valid_after(datetime.now(timezone.utc) + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage, **dict.fromkeys(others, False)), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(form.Encoding.PEM))
        above = (name, key)

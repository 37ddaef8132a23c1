"""Photos with Content Credentials, signed by a signer of this test alone."""

import datetime
import io
import json
from functools import cache
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_FROM, _DAYS = datetime.datetime(2026, 1, 1), datetime.timedelta(days=20 * 365)
NEWSCODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def signed(
    data: bytes,
    source: str,
    training: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
) -> bytes:
    """The photo with a manifest: how it was created, {use: allowed, notAllowed or constrained}, and terms of
    metadata as JSON-LD."""
    kind = "png" if data.startswith(b"\x89PNG") else "webp" if data.startswith(b"RIFF") else "jpeg"
    action = {"action": "c2pa.created", "digitalSourceType": NEWSCODES + source}
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    if training is not None:
        entries = {f"cawg.{name}": {"use": use} for name, use in training.items()}
        assertions.append({"label": "cawg.training-mining", "data": {"entries": entries}})
    if metadata is not None:
        context = {"plus": "http://ns.useplus.org/ldf/xmp/1.0/", "dc": "http://purl.org/dc/elements/1.1/"}
        assertions.append({"label": "cawg.metadata", "data": {"@context": context, **metadata}})
    manifest = {"claim_generator_info": [{"name": "Drawn Generator"}], "assertions": assertions}
    sink = io.BytesIO()
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", *_signer(), None))
    c2pa.Builder(json.dumps(manifest)).sign(signer, f"image/{kind}", io.BytesIO(data), sink)
    return sink.getvalue()


@cache
def _signer() -> tuple[bytes, bytes]:
    """Certificates of a signer and of its root, and the signer's key, as PEM."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    root, own = _certificate(keys, is_root=True), _certificate(keys, is_root=False)
    chain = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (own, root))
    return chain, keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(keys: list[ec.EllipticCurvePrivateKey], is_root: bool) -> x509.Certificate:
    key = keys[0 if is_root else 1].public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(_name("root" if is_root else "signer"))
        .issuer_name(_name("root"))
        .public_key(key)
        .serial_number(1 if is_root else 2)
        .not_valid_before(_FROM)
        .not_valid_after(_FROM + _DAYS)
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(_usage(is_root), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
    if not is_root:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
        email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = made.add_extension(issuer, critical=False).add_extension(email, critical=True)
    return made.sign(keys[0], hashes.SHA256())


def _usage(is_root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _name(common: str) -> x509.Name:
    parts = (
        (NameOID.COMMON_NAME, common),
        (NameOID.ORGANIZATION_NAME, "Drawn"),
        (NameOID.COUNTRY_NAME, "US"),
    )
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])

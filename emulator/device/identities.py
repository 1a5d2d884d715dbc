"""Obtaining the identities that a profile asks for: by SCEP, by ACME, or ready made as PKCS#12.

A payload comes in, an InstalledIdentity goes out; nothing is stored here. Payloads were checked before (`identity_checks`).
"""

import asyncio
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import csr, names
from certs.acme.client import AcmeClient
from certs.acme.device_attest import permanent_identifier_name
from certs.errors import MalformedMessage
from certs.identity import PFX, Identity
from certs.keys import KeySource, KeySpec, PrivateKey
from certs.scep.capabilities import Capabilities
from certs.scep.client import ScepClient
from emulator.device import user_agent
from emulator.device.attestation import request_attestation
from emulator.device.channel import device_trust
from emulator.device.device import Device
from emulator.device.error_chains import CERTIFICATE, installation_failed
from emulator.device.keychain import IdentityKind, InstalledIdentity
from emulator.device.surroundings import Surroundings, peer_errors
from emulator.http import HttpSession
from emulator.wire.profile import AcmePayload, Pkcs12Payload, ScepPayload

SIGNING_AND_ENCRYPTION = 5  # what an absent or zero Key Usage asks for (certificates.md 1.8)
ELLIPTIC: dict[int, tuple[KeySpec, str]] = {
    192: ("p192", "sha256"),
    256: ("p256", "sha256"),
    384: ("p384", "sha384"),
    521: ("p521", "sha512"),
}


async def obtain(
    device: Device,
    surroundings: Surroundings,
    profile_identifier: str,
    payload: ScepPayload | AcmePayload | Pkcs12Payload,
    *,
    anonymous: bool = False,
) -> InstalledIdentity:
    """The identity of one payload; `anonymous`: its attestation names no device (User Enrollment).

    Raises PeerRefused, StepTimeout or ProfileRefused.
    """
    kind: IdentityKind
    match payload:
        case ScepPayload():
            current = _renewed_by_itself(device, surroundings, profile_identifier)
            kind, identity = "scep", await _by_scep(device, surroundings, payload, current)
        case AcmePayload():
            kind, identity = "acme", await _by_acme(device, surroundings, payload, anonymous)
        case Pkcs12Payload():
            kind, identity = "pkcs12", await _from_file(payload)
    return InstalledIdentity(
        profile_identifier=profile_identifier,
        payload_uuid=payload.uuid,
        kind=kind,
        identity=identity,
    )


def _renewed_by_itself(
    device: Device, surroundings: Surroundings, profile_identifier: str
) -> Identity | None:
    """The identity that asks for its successor, where the profile that brought it has come again (RFC 8894, 3.3.1.2)."""
    installed = device.installed_identity
    if surroundings.behaviour.scep_renewal != "renewal-req" or installed is None:
        return None
    same = installed.kind == "scep" and installed.profile_identifier == profile_identifier
    return installed.identity if same else None


async def _by_scep(
    device: Device, surroundings: Surroundings, payload: ScepPayload, current: Identity | None
) -> Identity:
    key = await _rsa_key(surroundings.keys, payload.keysize)
    request = csr.build(
        key,
        names.from_subject(payload.subject),
        challenge=payload.challenge,
        key_usage=names.key_usage(payload.key_usage or SIGNING_AND_ENCRYPTION),
        alternative_names=names.alternative_names(payload.subject_alt_name),
    )
    override = payload.get_ca_caps
    async with _enrollment_session(device, surroundings) as transport:
        client = ScepClient(
            transport,
            payload.url,
            clock=surroundings.clock,
            keys=surroundings.keys,
            name=payload.name,
            ca_fingerprint=payload.ca_fingerprint,
            signer=surroundings.behaviour.scep_signer,
            retries=payload.retries,
            retry_delay_s=payload.retry_delay_s,
            capabilities=None
            if override is None
            else Capabilities.parse("\n".join(override).encode()),
            faults=surroundings.faults,
        )
        with peer_errors("scep"):
            if current is None:
                issued = await client.enroll(key, request)
            else:
                issued = await client.renew(current, key, request)
    return _identity(key, issued)


async def _by_acme(
    device: Device, surroundings: Surroundings, payload: AcmePayload, anonymous: bool
) -> Identity:
    key, digest = await _acme_key(surroundings.keys, payload)
    alternative_names = names.alternative_names(payload.subject_alt_name)
    if surroundings.behaviour.csr_names_identifier:
        alternative_names.append(permanent_identifier_name(payload.client_identifier))
    request = csr.build(
        key,
        names.from_subject(payload.subject),
        key_usage=names.key_usage(payload.usage_flags),
        alternative_names=alternative_names,
        extended_key_usage=[x509.ObjectIdentifier(oid) for oid in payload.extended_key_usage],
        digest=digest,
    )

    async def attest(freshness: bytes) -> Sequence[bytes]:
        return await request_attestation(
            device, surroundings, key.public_key(), freshness, anonymous=anonymous
        )

    async with _enrollment_session(device, surroundings) as transport:
        client = AcmeClient(
            transport,
            payload.directory_url,
            clock=surroundings.clock,
            keys=surroundings.keys,
            faults=surroundings.faults,
        )
        with peer_errors("acme"):
            issued = await client.enroll(
                request,
                identifier=payload.client_identifier,
                # Chips before the A11 ignore Attest (certificates.md 2.1).
                attest=attest if payload.attest and device.hardware.attests else None,
                unattested=surroundings.behaviour.unattested,
                key=key,
            )
    return _identity(key, issued)


async def _from_file(payload: Pkcs12Payload) -> Identity:
    try:
        return await asyncio.to_thread(Identity.from_pkcs12, payload.content, payload.password)
    except MalformedMessage as error:
        if error.expected == PFX:
            text = f"The certificate “{payload.identifier}” is malformed."
            raise installation_failed(CERTIFICATE, 9005, text) from error
        if error.expected.startswith("a private key"):
            text = f"The payload “{payload.identifier}” holds no identity."
            raise installation_failed(CERTIFICATE, 9006, text) from error
        text = f"The password of the certificate “{payload.identifier}” is incorrect."
        raise installation_failed(CERTIFICATE, 9000, text) from error


def _enrollment_session(device: Device, surroundings: Surroundings) -> HttpSession:
    return surroundings.door.session(
        trust=device_trust(device, surroundings),
        user_agent=user_agent.profiled(device),
        device=device.hardware.udid,
        on_timing=surroundings.timing_for(device),
    )


async def _rsa_key(keys: KeySource, bits: int) -> rsa.RSAPrivateKey:
    """From the source where it makes such keys, else made in a thread (ACME allows any multiple of 8)."""
    specs: dict[int, KeySpec] = {
        1024: "rsa1024",
        2048: "rsa2048",
        3072: "rsa3072",
        4096: "rsa4096",
    }
    if bits not in specs:
        return await asyncio.to_thread(rsa.generate_private_key, 65537, bits)
    key = await keys.take(specs[bits])
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the key source gave another kind of key than asked for")
    return key


async def _acme_key(keys: KeySource, payload: AcmePayload) -> tuple[PrivateKey, str]:
    if payload.key_type == "RSA":
        return await _rsa_key(keys, payload.key_size), "sha256"
    spec, digest = ELLIPTIC[payload.key_size]
    return await keys.take(spec), digest


def _identity(key: PrivateKey, issued: Sequence[x509.Certificate]) -> Identity:
    return Identity(key, issued[0], tuple(issued[1:]))

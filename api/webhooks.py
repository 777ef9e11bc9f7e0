"""Events that are signed by whoever sent them, as the Standard Webhooks specification says (version 1, symmetric).

`webhook-signature` holds one or more `v1,<base64>`, each an HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>` under a secret that
both sides know. The timestamp bounds how long a message that somebody listened to can be sent again; within that time the ledger of
answers takes it once.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence

from api.access import Unauthorized

SIGNATURE = "webhook-signature"
TOLERANCE_S = 300
PREFIX = "whsec_"


class BadSecret(ValueError):
    """A webhook secret is not `whsec_` and the base64 of 24 to 64 bytes."""


def secret_of(text: str) -> bytes:
    """The key in a secret's text. Raises BadSecret."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise BadSecret(f"use {PREFIX} and the base64 of 24 to 64 random bytes")
    return key


def verify(secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes, *, now_s: float | None = None) -> None:
    """Returns for a message that one of the secrets has signed lately. Raises Unauthorized.

    now_s: the time as seconds since 1970, by default this machine's.
    """
    id, said_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id or not said_at.isascii() or not said_at.isdecimal() or len(said_at) > 12:
        raise Unauthorized("a signed message needs the headers webhook-id and webhook-timestamp, the latter in seconds")
    if abs((time.time() if now_s is None else now_s) - int(said_at)) > TOLERANCE_S:
        raise Unauthorized(f"webhook-timestamp is more than {TOLERANCE_S} s away from now; sign the message anew")
    signed = b".".join((id.encode("latin-1"), said_at.encode(), body))  # headers are read as latin-1
    right = [b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in secrets]
    given = headers.get(SIGNATURE, "").encode("latin-1").split()
    if not any(hmac.compare_digest(one, other) for one in right for other in given):
        raise Unauthorized("webhook-signature is by none of the secrets known here")

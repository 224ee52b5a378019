"""Reads Secrets when they are needed; nothing of them is kept."""

from __future__ import annotations

import base64
import binascii

from fairlead.api.meta import SecretKeyRef
from fairlead.errors import RetryableError, TerminalError
from fairlead.kube import KubeClient, Ref


async def read_secret(kube: KubeClient, namespace: str, ref: SecretKeyRef, *, whose: str) -> str:
    """Return the text of a Secret's key, without white space around it. *whose* it is, is said in messages.

    Raises:
        RetryableError: it does not exist.
        TerminalError: it is no text.
    """
    where = f"key {ref.key} of Secret {namespace}/{ref.name}, which {whose} names"
    secret = await kube.get(Ref("v1", "Secret", ref.name, namespace))
    encoded = ((secret or {}).get("data") or {}).get(ref.key)
    if not encoded:
        raise RetryableError(f"there is no {where}: create it", reason="SecretNotFound")
    try:
        return base64.b64decode(encoded, validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        raise TerminalError(f"the {where} is no text", reason="InvalidSecret") from None

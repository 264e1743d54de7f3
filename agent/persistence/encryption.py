"""Encryption at rest: LangGraph's ``EncryptedSerializer`` around ours, with errors of our own.

What is encrypted are values: messages, other state, tool results. Ids, times, tags, metadata, titles given by
hand, names of tools and numbers of messages stay readable, because lists are made of them; so does a digest
of every version of a list, by which somebody who knows a whole conversation can recognise it. There are no
automatic titles and no search, as both would store words of the conversation in the open.
"""

from __future__ import annotations

from typing import Any, Final

from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from agent.errors import ConfigurationError, DatabaseError, MissingExtraError

_KEY_BYTES: Final = (16, 24, 32)


class StrictEncryptedSerializer(EncryptedSerializer):
    """Values encrypted; what does not decrypt is an error of ours."""

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Decrypt and deserialize.

        Raises:
            DatabaseError: Encrypted with another key or cipher, damaged, or refused.
        """
        try:
            return super().loads_typed(data)
        except (ValueError, AssertionError, KeyError, TypeError) as error:
            raise DatabaseError(
                f"a stored value of kind {data[0]!r} cannot be decrypted ({error}): it was encrypted with "
                "another key, or changed since"
            ) from error


def encrypted(serde: SerializerProtocol, cipher: CipherProtocol) -> StrictEncryptedSerializer:
    """A serializer that encrypts what ``serde`` makes."""
    return StrictEncryptedSerializer(cipher, serde)


def aes_cipher(key: str | bytes) -> CipherProtocol:
    """AES in EAX mode, which also notices changes; as LangGraph does it.

    Args:
        key: 16, 24 or 32 bytes; a text counts as its UTF-8 bytes.

    Raises:
        ConfigurationError: The key has another length.
        MissingExtraError: pycryptodome is not installed.
    """
    if not isinstance(key, str | bytes):
        raise ConfigurationError(f"an encryption key is a text or bytes, not {type(key).__name__}")
    secret = key.encode(errors="surrogatepass") if isinstance(key, str) else key
    if len(secret) not in _KEY_BYTES:
        raise ConfigurationError(
            f"an encryption key of {len(secret)} bytes: give 16, 24 or 32, for example 32 characters from "
            "`openssl rand -hex 16`"
        )
    try:
        return EncryptedSerializer.from_pycryptodome_aes(key=secret).cipher
    except ImportError as error:
        raise MissingExtraError(
            "encryption needs the package pycryptodome, which is not installed: "
            "pip install 'vllm-agent[encryption]'"
        ) from error

"""What may be a bearer token: the one rule for keys of servers and for the hub's token."""

from __future__ import annotations

from agent.errors import ConfigurationError


def bearer_token(text: str, *, named: str) -> str:
    """Return the token, without the line break that a file it was read from ends with.

    Args:
        text: The token as it was given; an empty text is none, and stays empty.
        named: Where it was given, in words for an error.

    Raises:
        ConfigurationError: No header can hold it. The message does not show it, as what fails later would.
    """
    token = text.strip()
    if not (token.isascii() and token.isprintable()):
        msg = f"{named} has a line break or a character other than ASCII in it, so it is no key or token"
        raise ConfigurationError(msg)
    return token

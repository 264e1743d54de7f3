"""Which network addresses belong to the public internet.

An address that a name stands for may be one of this machine, of its network, or of the cloud it runs in
(where ``169.254.169.254`` gives away credentials). IPv6 has several ways to write an IPv4 address inside
another one; each is unpacked, since a gateway on the way may do so too.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address, IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_REFUSED = (
    IPv6Network("::/96"),  # RFC 4291, 2.5.5.1: IPv4-compatible addresses, long out of use
    IPv6Network("64:ff9b:1::/48"),  # RFC 8215: NAT64 of a network's own
    IPv6Network("fec0::/10"),  # RFC 3879: site-local addresses, out of use
    IPv6Network("5f00::/16"),  # RFC 9602: segment routing inside one network
)


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, and not of one machine or network, or of a group."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return _is_public_v4(found)
    if found.scope_id is not None or any(found in network for network in _REFUSED):
        return False
    inside = _inside(found)
    if inside:
        return all(_is_public_v4(each) for each in inside)
    return found.is_global and not found.is_multicast


def _is_public_v4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inside(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address carries."""
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    if address.sixtofour is not None:
        return [address.sixtofour]
    return list(address.teredo or ())

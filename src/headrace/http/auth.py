"""Who is calling, what they may read and change, and whether a foreign web page sent them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from headrace.config.options import ApiKey, ServerOptions
from headrace.config.origin import key_text
from headrace.errors import Forbidden, Unauthorized
from headrace.types import ALL_ACCESS


@dataclass(frozen=True)
class Caller:
    """The owner of a key, or anybody where no keys are configured. `name` tells keys apart: the
    variable that holds the key, or nothing."""

    access: frozenset[str]
    admin: bool
    name: str = ""

    def narrow(self, wanted: Sequence[str] | None) -> frozenset[str]:
        """The access set of a request: the caller's own, cut down to what the request names. A
        request can lose rights this way and never gain any; with nothing left it finds nothing."""
        if wanted is None or "*" in wanted:
            return self.access
        asked = frozenset(wanted)
        return asked if "*" in self.access else self.access & asked

    def may_read(self, labels: Sequence[str]) -> bool:
        """Does a document with these labels exist for this caller?"""
        return self.access >= ALL_ACCESS or not self.access.isdisjoint(labels)

    def require_admin(self) -> None:
        if not self.admin:
            raise Forbidden("this needs an API key whose configuration says `admin: true`")


class Keyring:
    """The configured keys, as digests: comparing them takes the same time whatever was sent.

    `environment` holds the keys' texts. Raises `ConfigError` for a variable that is not set.
    """

    def __init__(self, options: ServerOptions, environment: Mapping[str, str]) -> None:
        self._callers = [(_key_digest(key, environment), _owner(key)) for key in options.keys]
        self._anonymous = Caller(frozenset(options.anonymous_access), admin=True)

    @property
    def empty(self) -> bool:
        return not self._callers

    def caller(self, headers: Headers) -> Caller:
        """Raises `Unauthorized` where keys are configured and none of them was sent."""
        if not self._callers:
            return self._anonymous
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("send an API key: `Authorization: Bearer KEY`")
        sent = _digest(token.strip())
        found: Caller | None = None
        for digest, caller in self._callers:  # all of them: no early exit to measure
            if hmac.compare_digest(digest, sent):
                found = caller
        if found is None:
            raise Unauthorized("this API key is not known here")
        return found


def _owner(key: ApiKey) -> Caller:
    return Caller(frozenset(key.access), key.admin, key.env)


def _key_digest(key: ApiKey, environment: Mapping[str, str]) -> bytes:
    return _digest(key_text(key, environment))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class OriginGuard:
    """Keeps web pages out of a server that trusts its own machine.

    A server on loopback without keys trusts whoever reaches it. A web page can reach it through
    the user's browser, by a request across origins or by giving its own name a loopback address
    (DNS rebinding). Both show in the headers `Host` and `Origin`.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._active = not options.keys and _is_loopback(options.host)
        self._names = {"localhost", "127.0.0.1", "::1", options.host.lower()}

    def check(self, headers: Headers) -> None:
        """Raises `Forbidden`."""
        if not self._active:
            return
        if _host_name(f"//{headers.get('host', '')}") not in self._names:
            raise Forbidden(
                "the Host header names another machine; call this server as localhost, or "
                "configure server.keys"
            )
        origin = headers.get("origin")
        if origin is not None and _host_name(origin) not in self._names:
            raise Forbidden(
                "a web page of another origin may not call this server; configure server.keys"
            )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:  # a bracket without its partner
        return ""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from headrace.config.options import ApiKey, ServerOptions
from headrace.errors import ConfigError, Forbidden, Unauthorized
from headrace.http.auth import Caller, Keyring, OriginGuard

KEYS = ServerOptions(
    keys=(
        ApiKey(env="READER_KEY", access=("public", "staff")),
        ApiKey(env="OWNER_KEY", access=("*",), admin=True),
    )
)
ENVIRONMENT = {"READER_KEY": "r-1", "OWNER_KEY": "o-1"}


def bearer(token: str) -> Headers:
    return Headers({"authorization": f"Bearer {token}"})


def test_key_gives_its_owner_access_and_rights() -> None:
    keyring = Keyring(KEYS, ENVIRONMENT)
    reader = keyring.caller(bearer("r-1"))
    assert reader == Caller(frozenset({"public", "staff"}), admin=False, name="READER_KEY")
    assert keyring.caller(bearer("o-1")).admin
    with pytest.raises(Forbidden, match="admin"):
        reader.require_admin()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer  "},
        {"authorization": "Bearer r-2"},
        {"authorization": "Basic r-1"},
        {"authorization": "r-1"},
        {"authorization": "Bearer r-\xff1"},
    ],
)
def test_missing_or_wrong_key_is_unauthorized_and_never_repeated(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized) as caught:
        Keyring(KEYS, ENVIRONMENT).caller(Headers(headers))
    assert "r-2" not in caught.value.message


def test_key_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError, match="OWNER_KEY"):
        Keyring(KEYS, {"READER_KEY": "r-1", "OWNER_KEY": " "})


def test_without_keys_anyone_reads_what_the_configuration_says() -> None:
    keyring = Keyring(ServerOptions(anonymous_access=("public", "hr")), {})
    assert keyring.caller(Headers({})) == Caller(frozenset({"public", "hr"}), admin=True)


@pytest.mark.parametrize(
    ("own", "wanted", "left"),
    [
        ({"a", "b"}, None, {"a", "b"}),
        ({"a", "b"}, ["a"], {"a"}),
        ({"a"}, ["a", "secret"], {"a"}),
        ({"a"}, ["secret"], set()),
        ({"a"}, ["*"], {"a"}),
        ({"a"}, [], set()),
        ({"*"}, ["secret"], {"secret"}),
        ({"*"}, None, {"*"}),
    ],
)
def test_requests_narrow_and_never_widen(
    own: set[str], wanted: list[str] | None, left: set[str]
) -> None:
    assert Caller(frozenset(own), admin=False).narrow(wanted) == left


def test_document_is_readable_by_a_shared_label_or_by_all() -> None:
    assert Caller(frozenset({"hr"}), admin=False).may_read(("public", "hr"))
    assert not Caller(frozenset({"public"}), admin=True).may_read(("hr",))
    assert Caller(frozenset({"*"}), admin=False).may_read(("hr",))


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"host": "localhost:8017"}, True),
        ({"host": "127.0.0.1:8017"}, True),
        ({"host": "[::1]:8017"}, True),
        ({"host": "LOCALHOST"}, True),
        ({"host": "evil.example:8017"}, False),
        ({"host": "localhost.evil.example"}, False),
        ({"host": "[::1"}, False),
        ({}, False),
        ({"host": "localhost", "origin": "http://localhost:3000"}, True),
        ({"host": "localhost", "origin": "https://evil.example"}, False),
        ({"host": "localhost", "origin": "null"}, False),
    ],
)
def test_foreign_pages_are_kept_out_of_a_loopback_server(
    headers: dict[str, str], passes: bool
) -> None:
    guard = OriginGuard(ServerOptions())
    if passes:
        guard.check(Headers(headers))
    else:
        with pytest.raises(Forbidden):
            guard.check(Headers(headers))


def test_hosts_do_not_matter_with_keys_or_on_an_open_address() -> None:
    foreign = Headers({"host": "rag.example", "origin": "https://rag.example"})
    OriginGuard(KEYS).check(foreign)
    OriginGuard(ServerOptions(host="0.0.0.0")).check(foreign)

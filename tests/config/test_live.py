"""What a change of the configuration means for a running server."""

from __future__ import annotations

from pathlib import Path

from headrace.config.live import change
from headrace.config.load import read_text
from headrace.config.options import Config
from headrace.config.reference import json_schema, markdown


def config(text: str) -> Config:
    return read_text(text, "f.yaml", Path("/"))


BASE = "models:\n  a: {role: generator, engine: echo}\n"


def test_nothing_changed() -> None:
    made = change(config(BASE), config(BASE))
    assert (made.live, made.restart) == ((), ())
    assert made.config == config(BASE)


def test_live_options_change_and_others_wait() -> None:
    wanted = config(BASE + "server: {port: 9, max_pending: 7}\nanswer: {max_quotes: 2}\n")
    made = change(config(BASE), wanted)
    assert made.live == ("server.max_pending", "answer.max_quotes")
    assert made.restart == ("server.port",)
    assert made.config.server.port == Config().server.port
    assert made.config.server.max_pending == 7
    assert made.wanted is wanted
    again = change(made.config, wanted)
    assert (again.live, again.restart) == ((), ("server.port",))


def test_entries_come_change_and_go_by_name() -> None:
    other = "models:\n  b: {role: reranker, engine: echo}\n"
    made = change(config(BASE), config(other))
    assert made.live == ("models.a", "models.b")
    parked = "models:\n  a: {role: generator, engine: echo, device: cpu, slots: 2}\n"
    assert change(config(BASE), config(parked)).live == ("models.a.device", "models.a.slots")
    town = BASE + "collections:\n  town: {generator: a}\n"
    assert change(config(BASE), config(town)).live == ("collections.town",)
    strict = BASE + "collections:\n  town: {generator: a, answer: {verification: strict}}\n"
    assert change(config(town), config(strict)).live == ("collections.town.answer",)


def test_keys_change_as_one() -> None:
    keyed = config("server: {keys: [{env: A_KEY}, {env: B_KEY, admin: true}]}\n")
    assert change(config(""), keyed).live == ("server.keys",)


def test_folders_wait() -> None:
    made = change(config(""), config("data_dir: /elsewhere\ncache_dir: /there\n"))
    assert made.restart == ("data_dir", "cache_dir")
    assert made.config == config("")


def test_the_mark_stands_in_the_schema_and_in_the_document() -> None:
    server = json_schema()["$defs"]["ServerOptions"]["properties"]
    assert server["port"]["restart"] is True
    assert "restart" not in server["max_pending"]
    line = next(line for line in markdown().splitlines() if line.startswith("| `port`"))
    assert "next start" in line

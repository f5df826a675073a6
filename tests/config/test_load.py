"""A wrong file is refused with file, line, option and what was expected; a right one is applied."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.load import MAX_BYTES, config_version, find_file, load, read_file, read_text
from headrace.config.options import Config
from headrace.errors import ConfigError


def read(text: str) -> Config:
    return read_text(text, "f.yaml", Path("/base"))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.message


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "server:\nmodels:\n"])
def test_an_empty_file_means_the_defaults(text: str) -> None:
    assert read(text).server == Config().server
    assert read(text).models == Config().models


def test_values_are_applied_and_default_models_stay() -> None:
    config = read(
        "server:\n  port: 9000\nmodels:\n  mine: {role: embedder, engine: echo}\n"
        "defaults:\n  embedder: mine\n  generator: null\nretrieval: {dense_weight: 1}\n"
    )
    assert config.server.port == 9000
    assert set(config.models) == {"smollm2", "e5-small", "e5-late", "mine"}
    assert config.defaults.embedder == "mine"
    assert config.defaults.generator is None
    assert config.retrieval.dense_weight == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "server:\n  port: 99999\n",
            "f.yaml:2: server.port: must be a whole number from 0 to 65535, not 99999",
        ),
        (
            'server:\n  port: "80"\n',
            'f.yaml:2: server.port: must be a whole number from 0 to 65535, not "80"',
        ),
        (
            "answer:\n  verification: yes\n",
            'f.yaml:2: answer.verification: must be `annotate` or `strict` or `off`, not "yes"',
        ),
        (
            "server:\n\n  prt: 1\n",
            "f.yaml:3: server.prt: there is no such option; did you mean `port`?",
        ),
        (
            "models:\n  m:\n    role: writer\n    engine: echo\n",
            "f.yaml:3: models.m.role: must be `generator` or `embedder` or `reranker`, "
            'not "writer"',
        ),
        (
            "models:\n  m:\n    role: generator\n",
            "f.yaml:2: models.m.engine: is missing; "
            "must be `echo` or `llamacpp` or `onnx` or `openai`",
        ),
        (
            "models:\n  m: {role: generator, engine: llamacpp}\n",
            "f.yaml:2: models.m: engine 'llamacpp' needs a source",
        ),
        (
            "defaults:\n  embedder: none-such\n",
            "f.yaml:2: defaults.embedder: there is no model 'none-such'; "
            "known: e5-late, e5-small, smollm2",
        ),
        (
            "retrieval:\n  rerank_first: e5-small\n",
            "f.yaml:2: retrieval.rerank_first: model 'e5-small' is a embedder, not a reranker",
        ),
        (
            "models:\n  m: {role: reranker, engine: onnx, source: 'file:x', scoring: yes_no}\n",
            "f.yaml:2: models.m: scoring 'yes_no' is of the engine 'llamacpp'",
        ),
        (
            "models:\n  m: {role: embedder, engine: onnx, source: 'file:x', "
            "scoring: late_interaction}\n",
            "f.yaml:2: models.m: scoring 'late_interaction' is for the role reranker",
        ),
        (
            "server:\n  keys:\n    - env: OK\n    - env: not-ok\n",
            "f.yaml:4: server.keys[1].env: must be text matching `^[A-Z_][A-Z0-9_]*$`, "
            'not "not-ok"',
        ),
        (
            "server:\n  anonymous_access:\n    - public\n    - '?'\n",
            "f.yaml:4: server.anonymous_access[1]: must be text matching `^[\\w][\\w.:-]{0,63}$` "
            'or `*`, not "?"',
        ),
        (
            "collections:\n  a/b: {}\n",
            "f.yaml:2: collections.a/b: is not a name: "
            "letters, digits, `_`, `.` and `-`, at most 64",
        ),
        ("server: []\n", "f.yaml:1: server: must be a section of options, not []"),
        ("server:\n  port: 1\n  port: 2\n", "f.yaml:3: server.port is given twice (first: line 2)"),
        ("server:\n\tport: 1\n", "f.yaml:2: a tab indents the line; YAML wants spaces"),
        ("- a\n- b\n", "f.yaml:1: must be a mapping of options (`name: value`)"),
        ("just words\n", "f.yaml:1: must be a mapping of options (`name: value`)"),
        ("a: &x [1]\nb: *x\n", "f.yaml:2: aliases (`*x`) are not allowed"),
        ("server:\n  port: !!int 3\n", "f.yaml:2: tags (`tag:yaml.org,2002:int`) are not allowed"),
        (
            "server: {}\n---\nserver: {}\n",
            "f.yaml:2: holds a second document; one file, one document",
        ),
        ("a: " + "[" * 5000, "f.yaml:1: is nested more than 16 levels deep"),
        ("server:\n  port: 1\x00\n", "f.yaml:2: character '\\x00' is not allowed"),
        ("? [a]\n: 1\n", "f.yaml:1: a name must be a word, not a list or map"),
        ("retrieval:\n  dense_weight: .nan\n", "f.yaml:2: .nan is not a finite number"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str) -> None:
    assert refusal(text) == message


def test_an_unknown_section_lists_the_known_ones() -> None:
    assert "known here: data_dir, cache_dir, server," in refusal("zzz: 1\n")


def test_all_problems_are_told_at_once_but_not_without_end() -> None:
    found = refusal("server:\n  port: -1\n  host: 3\n").splitlines()
    assert [line.split(":")[1] for line in found] == ["2", "3"]
    many = "".join(f"  m{n}: {{}}\n" for n in range(50))
    assert refusal(f"models:\n{many}").splitlines()[-1] == "... and 92 more"


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    message = "f.yaml"
    try:
        read(text)
    except ConfigError as error:
        message = error.message
    assert message.startswith("f.yaml")


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "headrace.yaml"
    path.write_bytes("server:\n  host: 地址\n".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"headrace\.yaml:2: is not UTF-8"):
        read_file(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        read_file(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_file(tmp_path)
    path.write_text("\ufeffserver:\n  port: 1\n", encoding="utf-8")
    assert read_file(path).server.port == 1


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "headrace.yaml"
    path.write_text(
        "data_dir: data\ncache_dir: ~/cache\n"
        "models:\n  m: {role: generator, engine: llamacpp, source: 'file:m.gguf'}\n",
        encoding="utf-8",
    )
    config = read_file(path)
    assert config.data_dir == tmp_path / "data"
    assert config.cache_dir == Path.home() / "cache"
    assert config.models["m"].source == f"file:{tmp_path}/m.gguf"


def test_the_order_in_which_files_are_looked_for(tmp_path: Path) -> None:
    given = tmp_path / "given.yaml"
    named = tmp_path / "named.yaml"
    here = tmp_path / "headrace.yaml"
    environment = {"HEADRACE_CONFIG": str(named)}
    for path in (given, named, here):
        path.write_text("", encoding="utf-8")
    assert find_file(given, environment=environment, folder=tmp_path) == given
    assert find_file(environment=environment, folder=tmp_path) == named
    assert find_file(environment={}, folder=tmp_path) == here
    named.unlink()
    with pytest.raises(ConfigError, match=r"no such configuration file \(from HEADRACE_CONFIG\)"):
        find_file(environment=environment, folder=tmp_path)


def test_two_variables_override_the_folders(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text("data_dir: data\nserver: {port: 1}\n", encoding="utf-8")
    environment = {"HEADRACE_DATA_DIR": str(tmp_path / "other"), "HEADRACE_SERVER_PORT": "2"}
    config = load(environment=environment, folder=tmp_path)
    assert config.data_dir == tmp_path / "other"
    assert config.server.port == 1


def test_the_version_changes_with_any_value_and_with_nothing_else() -> None:
    one = config_version(read("server:\n  port: 1\n"))
    assert one == config_version(read("# a comment\nserver: {port: 1}\n"))
    assert one != config_version(read("server:\n  port: 2\n"))
    assert len(one) == 12


def test_a_password_in_an_upstreams_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "headrace.yaml"
    path.write_text(
        'models:\n  x: {role: generator, engine: openai, source: "https://me:sesame@host/v1"}\n'
    )
    with pytest.raises(ConfigError, match="api_key_env") as caught:
        load(path)
    assert "sesame" not in caught.value.message

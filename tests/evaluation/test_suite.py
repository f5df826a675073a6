"""Suites: what is read, and how what is wrong is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from headrace.errors import ConfigError
from headrace.evaluation.format import Gold
from headrace.evaluation.suite import load_suite

HEAD = "name: s\ncollection: c\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    """The message, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load_suite(written(folder, text))
    return caught.value.message.replace(f"{folder}/", "")


def test_questions_in_the_suite(tmp_path: Path) -> None:
    loaded = load_suite(
        written(
            tmp_path,
            HEAD
            + """\
kinds: [retrieval, answers]
access: [public, staff]
answer: {generate: none, hits: 7}
questions:
  - id: one
    text: Who?
    gold: [{place: Keys}, {document: a.md, contains: [x, y]}]
    answers: [the keeper]
  - {id: two, text: 多少？, answerable: false}
""",
        )
    )
    one, two = loaded.questions
    assert one.gold == ((Gold(place="Keys"),), (Gold(document="a.md", contains=("x", "y")),))
    assert one.has_answer is True
    assert two.has_answer is False
    assert loaded.where.access == {"public", "staff"}
    from headrace.types import BULK

    request = loaded.request(one, one.text, BULK)
    assert (request.generate, request.hits, request.question) == ("none", 7, "Who?")


def test_any_of_the_gold_is_one_need(tmp_path: Path) -> None:
    text = HEAD + "gold: any\nquestions: [{id: a, text: b, gold: [{place: x}, {place: y}]}]\n"
    (question,) = load_suite(written(tmp_path, text)).questions
    assert question.gold == ((Gold(place="x"), Gold(place="y")),)


@pytest.mark.parametrize("packed", [False, True])
def test_questions_of_a_data_set(tmp_path: Path, packed: bool) -> None:
    rows = [
        {"qid": 7, "q": "Who?", "gold": [11, 12, 11], "a": "me", "more": 1},
        {"qid": 8, "q": "What?", "gold": [], "a": None},
    ]
    laws = [{"id": 11, "law": "L", "article": "1"}, {"id": 12, "law": "M", "article": "2"}]
    for name, entries in (("questions", rows), ("laws", laws)):
        raw = "\n".join(map(json.dumps, entries)).encode() + b"\n\n"
        path = tmp_path / "data" / (f"{name}.jsonl.gz" if packed else f"{name}.jsonl")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(raw) if packed else raw)
    end = ".gz" if packed else ""
    suite = HEAD + (
        f"questions:\n  file: $DATA/questions.jsonl{end}\n  id: qid\n  text: q\n  answers: a\n"
        f"  gold: {{field: gold, lookup: {{file: $DATA/laws.jsonl{end}, key: id}}, "
        "path: [law, article]}\n"
    )
    one, two = load_suite(written(tmp_path, suite), tmp_path / "data").questions
    assert (one.id, one.text, one.answers) == ("7", "Who?", ("me",))
    assert one.gold == ((Gold(path=("L", "1")),), (Gold(path=("M", "2")),))
    assert (two.gold, two.answers) == ((), ())


def test_multiple_choice_as_oran_bench_writes_it(tmp_path: Path) -> None:
    lines = [["Which?", ["1. this", "2. that"], "2"], ["", ["1. a", "2. b"], "1"], ["x", [], "1"]]
    path = tmp_path / "easy.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    suite = HEAD + (
        "kinds: [choice]\nquestions: {file: easy.jsonl, text: 0, choices: 1, correct: 2}\n"
    )
    assert "easy.jsonl:2: question 'easy-2': text: is empty" in refused(tmp_path, suite)
    found = load_suite(written(tmp_path, suite + "incomplete: ask\n")).questions
    assert [(q.id, q.correct, len(q.choices)) for q in found] == [
        ("easy-1", 2, 2),
        ("easy-2", 1, 2),
        ("easy-3", 1, 0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "suite.yaml: is empty"),
        ("name: s\ncollection: -_\n", "suite.yaml:2: -_ cannot be read as a number"),
        (HEAD + "about: " + "1" * 5000 + "\n", "suite.yaml:3: 1111"),
        (HEAD + 'about: "\\ud800"\n', "suite.yaml:3: holds half of a character"),
        (HEAD + "access: []\nquestions: []\n", "suite.yaml:3: access: Expected `array` of length"),
        (
            HEAD + "questions:\n  - {id: a, text: b, gold: [{place: ' '}]}\n",
            "question 'a': gold: an entry names no passage, or holds an empty text",
        ),
        (
            HEAD + "questions:\n  - {id: a, text: b, gold: [{title: T, contains: ['']}]}\n",
            "question 'a': gold: an entry names no passage, or holds an empty text",
        ),
        (
            HEAD + "answer:\n  hits: -5\nquestions: [{id: a, text: b}]\n",
            "suite.yaml:4: answer.hits: must be",
        ),
        ("- a\n", "suite.yaml:1: must be a mapping"),
        ("name: [\n", "suite.yaml:2:"),
        (HEAD, "suite.yaml: Object missing required field `questions`"),
        (HEAD + "questions: []\n", "suite.yaml: questions: there is none"),
        (HEAD + "questions: 3\n", "suite.yaml:3: questions: Expected `object | array`"),
        (HEAD + "question: []\nquestions: []\n", "unknown field `question`"),
        (
            "name: a b\ncollection: c\nquestions: []\n",
            "suite.yaml:1: name: Expected `str` matching",
        ),
        (
            HEAD + "questions:\n  - {id: a, text: b}\n  - {id: c, text: 5}\n",
            "suite.yaml:5: questions[1].text: Expected `str`, got `int`",
        ),
        (
            HEAD + "kinds: [answers]\nquestions:\n  - {id: a, text: b}\n  - {id: a, text: c}\n",
            "suite.yaml:6: id: 'a' is given twice (first: suite.yaml:5)",
        ),
        (
            HEAD + "questions:\n  - {id: a, text: ' '}\n",
            "suite.yaml:4: question 'a': text: is empty",
        ),
        (
            HEAD + "questions:\n  - {id: a, text: b, gold: [{}]}\n",
            "question 'a': gold: an entry names no passage",
        ),
        (
            HEAD + "questions:\n  - {id: a, text: b, answerable: false, answers: [c]}\n",
            "answerable: is false, but",
        ),
        (
            HEAD
            + "kinds: [choice]\nquestions:\n  - {id: a, text: b, choices: [x, y], correct: 3}\n",
            "correct: must be a number from 1 to 2",
        ),
        (HEAD + "questions: [{id: a, text: b}]\n", "no question has `gold`"),
        (HEAD + "kinds: [speed]\nquestions: [{id: a, text: b}]\n", "Invalid enum value 'speed'"),
        (
            HEAD + "answer: {hitz: 3}\nquestions: [{id: a, text: b}]\n",
            "suite.yaml:3: answer.hitz: there is no such setting",
        ),
        (
            HEAD + "answer:\n  hits: many\nquestions: [{id: a, text: b}]\n",
            "suite.yaml:4: answer.hits: Expected `int | null`, got `str`",
        ),
        (
            HEAD + "thresholds: {fused.R@10: high}\nquestions: [{id: a, text: b}]\n",
            "thresholds",
        ),
        (HEAD + "questions: {file: none.jsonl}\n", "none.jsonl: cannot be read: No such file"),
        (HEAD + "questions: {file: none.csv}\n", "questions stand in .jsonl, .json or .yaml"),
        (
            HEAD + "questions: {file: $DATA/x.jsonl}\n",
            "x.jsonl needs the folder of the data: set HEADRACE_EVAL_DATA",
        ),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_EVAL_DATA", raising=False)
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": ', "q.jsonl:2: is not JSON"),
        (b"\xff\xfe", "q.jsonl:2: is not JSON"),
        (
            b'{"question": "x"}',
            "q.jsonl:2: text: there is no field 'text'; the entry has fields qu",
        ),
        (b'{"text": ["x"]}', "q.jsonl:2: text: Expected `str`, got `array`"),
        (b'["x"]', "q.jsonl:2: text: there is no field 'text'"),
        (b"[" * 100_000, "q.jsonl:2: is not JSON"),
        (b'{"text": "a\\ud800"}', "q.jsonl:2: question 'q-2': holds half of a character"),
        (b'{"text": "' + b"x" * 30_000 + b'"}', "q.jsonl:2: question 'q-2': text: has 30000 char"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    text = HEAD + "kinds: [answers]\nquestions: {file: q.jsonl}\n"
    assert message in refused(tmp_path, text)


def test_a_place_in_an_array_may_hold_what_some_lack(tmp_path: Path) -> None:
    lines = [["Who?", "me", True], ["What?", None, False], ["Where?"]]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    text = (
        HEAD
        + "kinds: [answers]\n"
        + ("questions: {file: q.jsonl, text: 0, answers: 1, answerable: 2}\n")
    )
    found = load_suite(written(tmp_path, text)).questions
    assert [(q.answers, q.answerable) for q in found] == [(("me",), True), ((), False), ((), None)]


@pytest.mark.parametrize("part", ["gold", "answers", "answerable", "history"])
def test_a_field_that_no_entry_has_is_a_mistake(tmp_path: Path, part: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(b'{"text": "Who?", "anwser": "me"}\n')
    text = HEAD + f"kinds: [answers]\nquestions: {{file: q.jsonl, {part}: answer}}\n"
    message = f"q.jsonl:1: {part}: there is no field 'answer'; the entry has fields text, anwser"
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize("value", ["2024-13-45", "1" * 5000, "-_"])
def test_what_a_yaml_file_cannot_mean_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "q.yaml").write_text(f"- {{text: Who?, id: {value}}}\n", encoding="utf-8")
    assert "q.yaml: is not YAML: " in refused(tmp_path, HEAD + "questions: {file: q.yaml}\n")


def test_a_number_of_an_option_that_is_none(tmp_path: Path) -> None:
    line = json.dumps({"text": "Who?", "c": ["a", "b"], "k": "1" * 5000})
    (tmp_path / "q.jsonl").write_text(line, encoding="utf-8")
    text = HEAD + "kinds: [choice]\nquestions: {file: q.jsonl, choices: c, correct: k}\n"
    assert "q.jsonl:1: correct: '1111" in refused(tmp_path, text)


def test_a_huge_suite_is_refused(tmp_path: Path) -> None:
    assert "is larger than 1024 KiB" in refused(tmp_path, HEAD + "#" * 2**20)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 100)[:-9])
    message = refused(tmp_path, HEAD + "questions: {file: q.jsonl.gz}\n")
    assert "q.jsonl.gz: cannot be read" in message


def test_some_are_spread_evenly(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps([{"text": str(i)} for i in range(10)]))
    loaded = load_suite(written(tmp_path, HEAD + "kinds: [answers]\nquestions: {file: q.json}\n"))
    assert [q.id for q in loaded.some(4).questions] == ["q-1", "q-3", "q-6", "q-8"]
    assert loaded.some(99) is loaded
    assert loaded.some(4).fingerprint() != loaded.fingerprint()


def test_the_examples_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite over the examples uses the questions of the demo where they stand."""
    examples = Path(__file__).resolve().parents[2] / "examples"
    loaded = load_suite(examples / "eval" / "examples.yaml")
    assert len(loaded.questions) == 31
    assert sum(question.has_answer is False for question in loaded.questions) == 6
    assert all(len(question.gold) == 1 for question in loaded.questions if question.has_answer)


@pytest.mark.parametrize(("name", "count"), [("laws", 1000), ("hotpot", 100), ("oran", 13_952)])
def test_suites_of_data_sets(shared: Path, name: str, count: int) -> None:
    examples = Path(__file__).resolve().parents[2] / "examples"
    loaded = load_suite(examples / "eval" / f"{name}.yaml", shared / "data")
    assert len(loaded.questions) == count

"""`liveconfigs.json` of Agile Rag Server -> our configuration file.

That server keeps one LLM, embedders and rerankers on one GPU. Its format, as its guide and its
loaders describe it:

| there | here |
|---|---|
| `llms`, `embedders`, `rerankers` | `models.NAME` with its role |
| `standby_llms`, ... | `standby: true`; the first of each is the default of its role |
| `llm_path`, `path` | `source: file:PATH` |
| `device` | `device` |
| `max_tokens` of an LLM, for one request | `context`, for all slots together |
| `max_tokens` of an encoder | `max_tokens` |
| `size_est`, in MB | `size_hint` |
| `cuda_thres`; 0 means at once | `min_batch_for_gpu` |
| `idle_on_cpu: true` | `give_back: after_use` |
| `reranker_params.top_n` | `retrieval.hits`, where it is a number of passages |
| `reranker_params.batch_size` | `batch_tokens` of the rerankers |

Everything else is reported, unknown options too.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from headrace.config.answering import RetrievalOptions
from headrace.config.fields import NAME_PATTERN
from headrace.config.load import read_text
from headrace.config.model_options import ModelOptions
from headrace.errors import BadRequest
from headrace.types import Role

SLOTS = int(ModelOptions.model_fields["slots"].default)
MOST_HITS = 100

_ENGINES = {Role.GENERATOR: "llamacpp", Role.EMBEDDER: "onnx", Role.RERANKER: "onnx"}
_SECTIONS = {"llms": Role.GENERATOR, "embedders": Role.EMBEDDER, "rerankers": Role.RERANKER}
_ELSEWHERE = {
    "reset_flags": "no locks to reset; `POST /admin/reset` restarts a stuck model",
    "llm_params.default_temp": "a request that names no temperature gets the engine's",
    "llm_params.force_0_temp": "requests name their temperature",
    "llm_params.stream_chunk_size": "tokens are sent as they come",
    "embedder_params.token_estimation": "tokens are counted by the model's tokenizer",
    "embedder_params.resize": "vectors stay as the model makes them",
    "reranker_params.sentence_transformer_num_workers": "the engine has its own `threads`",
}


class Imported(NamedTuple):
    """`text` is a configuration file; `notes` say what it could not take over, and what must be
    done to the weights."""

    text: str
    notes: tuple[str, ...]


def translate(text: str, name: str) -> Imported:
    """Raises `BadRequest` if `text` is not such a file; `name` stands in the message."""
    given = _object(text, name)
    if not any(section in given for section in _SECTIONS):
        raise BadRequest(f"{name}: none of {', '.join(_SECTIONS)} is there; is it the right file?")
    work = _Translation(given, name)
    work.translate()
    made = _dumped(work.made, work.notes)
    read_text(made, "the translated file", Path.cwd())
    return Imported(made, tuple(work.notes))


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{name}: is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadRequest(f"{name}: must be an object of options")
    return given


class _Translation:
    """Reads `given` once, and fills `made` and `notes` on the way."""

    def __init__(self, given: Mapping[str, Any], name: str) -> None:
        self.made: dict[str, Any] = {"models": {}, "defaults": {}}
        self.notes: list[str] = []
        self._given = given
        self._name = name
        self._names: dict[tuple[Role, str], str] = {}

    def translate(self) -> None:
        for section, role in _SECTIONS.items():
            for name, options in self._entries(section):
                self._model(section, role, name, options)
            self._standby(f"standby_{section}", role)
        self._reranker_params()
        for path in self._rest():
            why = _ELSEWHERE.get(path)
            self.notes.append(f"{path}: no equivalent{f'; {why}' if why else ''}")

    def _mapping(self, section: str) -> dict[str, Any]:
        found = self._given.get(section, {})
        if not isinstance(found, dict):
            raise BadRequest(f"{self._name}: {section} must be an object")
        return found

    def _entries(self, section: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, options in self._mapping(section).items():
            if not isinstance(options, dict):
                raise BadRequest(f"{self._name}: {section}.{name} must be an object")
            yield name, options

    def _model(self, section: str, role: Role, name: str, options: dict[str, Any]) -> None:
        where = f"{section}.{name}"
        left = dict(options)
        path = left.pop("llm_path" if role is Role.GENERATOR else "path", None)
        if not isinstance(path, str) or not path:
            raise BadRequest(f"{self._name}: {where} names no path")
        made: dict[str, Any] = {"role": role.value, "engine": _ENGINES[role]}
        made["source"] = f"file:{self._weights(where, role, Path(path))}"
        if left.pop("tokenizer_path", path) != path:
            self.notes.append(f"{where}.tokenizer_path: no equivalent; it is read with the weights")
        made |= self._placement(where, role, left)
        tokens = self._number(where, left, "max_tokens")
        if tokens and role is Role.GENERATOR:
            made["context"] = max(256, tokens * SLOTS)
        elif tokens:
            made["max_tokens"] = max(8, tokens)
        self.notes += [f"{where}.{option}: no equivalent" for option in left]
        self._names[role, name] = self._free_name(where, name, role)
        self.made["models"][self._names[role, name]] = made

    def _placement(self, where: str, role: Role, left: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        device = left.pop("device", "flex")
        if device != "flex":
            made["device"] = device
        if size := self._number(where, left, "size_est"):
            made["size_hint"] = f"{size}MiB"
        threshold = self._number(where, left, "cuda_thres")
        if threshold is not None and role is not Role.GENERATOR:
            made["min_batch_for_gpu"] = max(1, threshold)
        elif threshold:
            self.notes.append(f"{where}.cuda_thres: no equivalent; it is for encoders")
        if left.pop("idle_on_cpu", False):
            made["give_back"] = "after_use"
        return made

    def _number(self, where: str, left: dict[str, Any], option: str) -> int | None:
        value = left.pop(option, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            raise BadRequest(f"{self._name}: {where}.{option} must be a number, not {value!r}")
        return round(value)

    def _weights(self, where: str, role: Role, path: Path) -> Path:
        """The file or folder to name; a note if our engine cannot use what is there."""
        if role is Role.GENERATOR:
            found = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
            if len(found) == 1:
                return found[0]
            self.notes.append(
                f"{where}: the engine llamacpp runs one .gguf file; {path} is not one and holds "
                f"{len(found)}. Convert the model, or take one that somebody has converted, and "
                "change `source`; or serve it with vLLM and use the engine openai"
            )
        elif path.suffix != ".onnx" and not any(
            (path / model).is_file() for model in ("model.onnx", "onnx/model.onnx")
        ):
            self.notes.append(
                f"{where}: the engine onnx runs model.onnx with its tokenizer.json; {path} holds "
                "none here. Export the model to ONNX, and change `source`"
            )
        return path

    def _free_name(self, where: str, name: str, role: Role) -> str:
        free = re.sub(r"[^\w.-]", "-", name)[:48].lstrip(".-") or role.value
        if free in self.made["models"]:
            free = f"{free}-{role.value}"
        assert re.fullmatch(NAME_PATTERN, free)
        if free != name:
            self.notes.append(f"{where}: is named {free!r} here")
        return free

    def _standby(self, section: str, role: Role) -> None:
        listed = self._given.get(section, [])
        if not isinstance(listed, list):
            raise BadRequest(f"{self._name}: {section} must be a list of names")
        known = [self._names[role, name] for name in listed if (role, name) in self._names]
        self.notes += [
            f"{section}: there is no model {name!r}"
            for name in listed
            if (role, name) not in self._names
        ]
        for name in known:
            self.made["models"][name]["standby"] = True
        if known:
            self.made["defaults"][role.value] = known[0]

    def _reranker_params(self) -> None:
        params = self._mapping("reranker_params")
        left = dict(params)
        top = self._number("reranker_params", left, "top_n")
        if top is not None and 1 <= top <= MOST_HITS:
            self.made["retrieval"] = {"hits": top}
        elif top is not None:
            hits = RetrievalOptions.model_fields["hits"].default
            self.notes.append(
                f"reranker_params.top_n: {top} means all; answers are written from {hits} hits "
                "(`retrieval.hits`), and a rerank request names its own `top_n`"
            )
        if batch := self._number("reranker_params", left, "batch_size"):
            for model in self.made["models"].values():
                if model["role"] == Role.RERANKER.value:
                    tokens = batch * model.get("max_tokens", 512)
                    model["batch_tokens"] = min(max(64, tokens), 1 << 20)

    def _rest(self) -> Iterator[str]:
        known = {*_SECTIONS, *(f"standby_{section}" for section in _SECTIONS)}
        for option, value in self._given.items():
            if option in known:
                continue
            if option.endswith("_params") and isinstance(value, dict):
                taken = ("top_n", "batch_size") if option == "reranker_params" else ()
                yield from (f"{option}.{inner}" for inner in value if inner not in taken)
            else:
                yield option


def _dumped(made: dict[str, Any], notes: list[str]) -> str:
    out = io.StringIO()
    out.write("# Translated from Agile Rag Server.\n")
    for note in notes:
        out.write(f"# - {note}\n")
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 4096
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump({section: options for section, options in made.items() if options}, out)
    return out.getvalue()

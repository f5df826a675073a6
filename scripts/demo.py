"""From nothing to three cited answers: the commands of `headrace`, run one after the other in one
process, so that the models are loaded once."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

from headrace.app import application
from headrace.cli import terminal
from headrace.cli.ask import answer_to_terminal
from headrace.cli.fetch import fetch_missing
from headrace.cli.ingest import ingest_to_terminal, print_report
from headrace.config.load import load
from headrace.config.options import Config
from headrace.errors import HeadraceError
from headrace.pipeline.plan import AnswerRequest
from headrace.types import ALL_ACCESS, Filter

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".demo" / "data"
DOCUMENTS = ROOT / "examples" / "docs"
COLLECTION = "examples"

NEXT = f"""
Next, in this shell:
  export HEADRACE_DATA_DIR={DATA.relative_to(ROOT)} PATH="$PWD/.venv/bin:$PATH"
  headrace ask "What is a penstock?" -C {COLLECTION}
  headrace search 第44条 -C {COLLECTION}
  headrace up        # then, from any OpenAI client: model headrace/{COLLECTION} at port 8017
With your own documents: headrace ingest FOLDER, then headrace ask "..." """


def demo_questions() -> list[str]:
    """The questions that examples/questions.yaml names for the demo."""
    given = YAML(typ="safe", pure=True).load(ROOT / "examples" / "questions.yaml")
    by_id = {entry["id"]: str(entry["question"]) for entry in given["questions"]}
    return [by_id[name] for name in given["demo"]]


def say(command: str) -> None:
    terminal.out().print(terminal.styled((f"\n$ headrace {command}", "bold green")))
    sys.stdout.flush()


async def run(config: Config) -> None:
    """Ingest and ask."""
    async with application(config) as services:
        say(f"ingest examples/docs -C {COLLECTION}")
        print_report(COLLECTION, await ingest_to_terminal(services, COLLECTION, [DOCUMENTS]))
        for question in demo_questions():
            say(f'ask "{question}" -C {COLLECTION}')
            request = AnswerRequest(COLLECTION, question, Filter(access=ALL_ACCESS))
            await answer_to_terminal(services, request)


def main() -> int:
    terminal.prepare_streams()
    began = time.monotonic()
    os.chdir(ROOT)  # sources are shown by their paths from here
    config = load(environment={**os.environ, "HEADRACE_DATA_DIR": str(DATA)})
    try:
        say("models pull")
        fetch_missing(config, sorted(config.models))
        terminal.out().print(f"{len(config.models)} models are ready in {config.cache_dir}")
        asyncio.run(run(config))
    except HeadraceError as error:
        terminal.err().print(f"error: {error.message}")
        return 1
    except KeyboardInterrupt:
        return 130
    terminal.out().print(f"\n{time.monotonic() - began:.0f} s in all.{NEXT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

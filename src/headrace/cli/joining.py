"""What a server process and the host that started it tell each other at the beginning."""

from __future__ import annotations

import msgspec

from headrace.serving.control import Topic
from headrace.serving.survey import Nothing


class Serving(msgspec.Struct, frozen=True):
    """A server process accepts connections."""

    pid: int


class Unable(msgspec.Struct, frozen=True):
    """A server process cannot begin, for a reason that another one would meet too."""

    pid: int
    code: str
    message: str


SERVING = Topic("server.serving", Serving, Nothing)
UNABLE = Topic("server.unable", Unable, Nothing)

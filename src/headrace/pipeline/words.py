"""Word lists for comparing claims: function words, quantifiers."""

from __future__ import annotations

import re

_ENGLISH = """
a about above after again all also am an and any are as at be because been before being below
between both but by can could did do does doing down during each either few for from further had has
have having he her here hers him his how i if in into is it its itself just may me might more most
much must my need of off on once one only or other our out over own per please s same shall she
should so some such t than that the their them then there these they this those through to too under
until up upon us very was we were what when where whether which while who whom whose why will with
within would you your according passage passages document documents answer question mean means say
says tell know
"""
_CHINESE = """
的 了 和 与 及 或 在 是 有 我 你 您 他 她 它 们 我们 他们 这 那
这个 那个 什么 怎么 怎样 怎么样 如何 哪 哪些 哪个 谁 多少 几 吗 呢 吧
啊 么 为 为了 于 以 对 对于 由 从 到 把 被 让 给 而 且 并 并且 但
但是 如果 若 则 就 都 也 还 又 很 可以 可 能 能够 会 应 应当 应该 要
需要 必须 请问 请 一个 一 个 是否 有关 关于 根据 按照 等 其 该 此 之
所 者 进行 规定 情况 是什么 为什么 有什么 怎么办 时 时候 后 前
"""
STOP = frozenset(_ENGLISH.split()) | frozenset(_CHINESE.split())
"""Words that carry no claim of their own."""

GLUE = frozenset("的了和与吗呢吧啊么什怎哪谁几是这那我你您他她它们就都也还被把给让且并但若则之其该")
"""Characters that join words and are part of hardly any."""

EVERYBODY = re.compile(
    r"\b(?:anyone|anybody|everyone|everybody|always)\b"
    r"|任何|(?<![体家民人方其归位司者社位])所有(?![权人者制])|一律|一切",
    re.IGNORECASE,
)
"""Who claims something of all must find it said of all. (所有 is also what one owns.)"""

"""Questions on the example documents, each with paraphrases and with twins: other questions that
differ from it in one detail. For `bench/cache.py`."""

from __future__ import annotations

from typing import NamedTuple


class Group(NamedTuple):
    question: str
    paraphrases: tuple[str, ...]
    twins: tuple[str, ...]


GROUPS = (
    Group(
        "居住区夜间噪声不能超过多少分贝？",
        (
            "请问居住区夜间噪声不能超过多少分贝",
            "居住区夜间的噪声最高是多少分贝？",
            "晚上居住区的噪声上限是多少分贝？",
        ),
        (
            "居住区昼间噪声不能超过多少分贝？",
            "商业区夜间噪声不能超过多少分贝？",
            "居住区夜间噪声能超过45分贝吗？",
        ),
    ),
    Group(
        "第二张居民停车证一年多少钱？",
        (
            "我想知道第二张居民停车证一年多少钱",
            "第二张居民停车证一年要多少？",
            "第二张居民停车证的年费是多少？",
        ),
        (
            "第一张居民停车证一年多少钱？",
            "第二张居民停车证一个月多少钱？",
            "第二张访客停车证一年多少钱？",
        ),
    ),
    Group(
        "擅自打开磨渠闸门罚多少？",
        (
            "擅自打开磨渠闸门罚多少钱？",
            "私自打开磨渠闸门罚多少？",
            "擅自打开磨渠闸门的罚款是多少？",
        ),
        ("擅自关闭磨渠闸门罚多少？", "谁可以打开磨渠闸门？", "擅自打开磨渠闸门为什么罚？"),
    ),
    Group(
        "日证摊位怎么收费？",
        ("日证摊位如何收费？", "请问日证摊位怎样收费的", "日证摊位的收费标准是什么？"),
        ("年证摊位怎么收费？", "日证摊位什么时候收费？", "日证摊位不收费吗？"),
    ),
    Group(
        "星期六可以装修房子吗？",
        ("星期六能不能装修房子？", "请问星期六是否可以装修房子", "周六能装修吗？"),
        ("星期日可以装修房子吗？", "星期六不可以装修房子吗？", "星期六几点可以装修房子？"),
    ),
    Group(
        "家里有婴儿，欠了水费会被限制供水吗？",
        (
            "家里有婴儿，欠水费会被限制供水吗？",
            "家里有婴儿，欠了水费会不会被限制供水？",
            "有宝宝的家庭欠水费会停水吗？",
        ),
        (
            "家里没有婴儿，欠了水费会被限制供水吗？",
            "家里有老人，欠了水费会被限制供水吗？",
            "家里有婴儿，欠了电费会被限制供水吗？",
        ),
    ),
    Group(
        "Who may start the wheel again after an emergency stop?",
        (
            "Who is allowed to start the wheel again after an emergency stop?",
            "Please tell me who may start the wheel again after an emergency stop.",
            "After an emergency stop, who can restart the wheel?",
        ),
        (
            "Who may stop the wheel again after an emergency stop?",
            "When may the wheel be started again after an emergency stop?",
            "Who may not start the wheel again after an emergency stop?",
        ),
    ),
    Group(
        "My car was towed away. What do I have to pay to get it back?",
        (
            "My car was towed away. What must I pay to get it back?",
            "My car was towed away; what do I have to pay to get it back, please?",
            "How much does it cost to get a towed car back?",
        ),
        (
            "My bicycle was towed away. What do I have to pay to get it back?",
            "My car was towed away. Where do I have to pay to get it back?",
            "My car was not towed away. What do I have to pay to get it back?",
        ),
    ),
    Group(
        "How many days of annual leave does a new employee have?",
        (
            "How many days of annual leave does a new employee get?",
            "Could you tell me how many days of annual leave a new employee has?",
            "What is the annual leave of a new employee in days?",
        ),
        (
            "How many days of sick leave does a new employee have?",
            "How many weeks of annual leave does a new employee have?",
            "How many days of annual leave does an employee have after 10 years?",
        ),
    ),
    Group(
        "What does Article 25 say?",
        (
            "What does article 25 say, please?",
            "What is said in Article 25?",
            "Can you explain Article 25?",
        ),
        ("What does Article 26 say?", "What does Article 25 not say?", "Where is Article 25?"),
    ),
)

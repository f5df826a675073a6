"""The words by which a text denies, obliges, permits, bounds, and names who does what."""

from __future__ import annotations


def _listed(words: str) -> list[str]:
    return words.split()


WHOLE = (
    "不动产|未成年人|未成年|不可抗力|无线|无人机|无人驾驶|无障碍|不仅|不但|不论|无论|不管|是否|能否|可否|不断|未来|不久"
    "|第三人|第三方|第三者|不特定|不正当"
)
"""Chinese words that look as if they held a negation or a number."""

AT_MOST = (
    "(?:不|不得|不能|不可以?|不应当?|未|没有)(?:超过|高于|多于|迟于|晚于|大于)"
    "|至多|最多|最高|最长|以下|以内|之内"
    r"|(?i:\b(?:no|not)\s(?:more|later|longer|higher|greater)\sthan\b|\bat\smost\b|\bup\sto\b"
    r"|\ba\smaximum\sof\b)"
)
AT_LEAST = (
    "(?:不|不得|不能|不可以?|不应当?)(?:少于|低于|早于|小于)|至少|最少|最低|最短|以上|满"
    r"|(?i:\b(?:no|not)\s(?:less|fewer|earlier|lower)\sthan\b|\bat\sleast\b|\ba\sminimum\sof\b)"
)

NOT = frozenset(
    _listed(
        """
不 不得 不能 不可 不应 不准 不许 不予 不会 未 未予 无 没 没有 禁止 严禁 无权 不必 无须 无需
并非 不是 拒绝 勿 切勿 毋须 不再 从未 尚未 并未 并不 绝不 决不 不可以 不能够 不应当
不应该 不须 不需 不需要 不用 均不 也不 都不 而不 又不 无法 不允许 不得不 not no never none
nor neither cannot can't without nobody nothing prohibited forbidden prohibit prohibits
forbid forbids
"""
    )
) - {"不得不"}
AFFIRMING = frozenset(_listed("无不 不得不 莫不 要不"))
"""What ends like a negation and is none."""

DENYING = "不未无"
"""A Chinese word that begins with one of these denies the rest of it, unless it is `WHOLE`."""

DENIABLE = "效偿限害罪责利据益线形"
"""What makes a word with 有 before it, and the opposite with 无."""

MUST = frozenset(
    _listed(
        """
应 应当 应该 必须 须 务必 一律 需 需要 must shall required obliged obligated should
"""
    )
)
MAY = frozenset(
    _listed(
        """
可 可以 能 能够 有权 允许 准许 得以 may can allowed permitted entitled free
"""
    )
)

BY = frozenset(["被", "由", "受", "遭", "by"])
"""Words that turn round who does what to whom."""

GRANTED = frozenset(_listed("支持 采纳 准许"))
"""What a court does, or does not do, with what was asked of it in the same sentence."""

ONLY_IF = frozenset(_listed("才 才能 方 方可 方能 只有 only"))
"""Words that make a condition of what a source puts as: not this, unless that."""

LEAVE = frozenset(_listed("经 经过 征得 取得 获得"))
"""After a word of duty: that it may not be done without leave."""

_PAIRS = """
以上/以下 增加/减少 增加/降低 提高/降低 上升/下降 高于/低于 大于/小于 多于/少于 超过/低于
超过/不足 之前/之后 以前/以后 前/后 早于/晚于 同意/拒绝 同意/反对 批准/驳回 接受/拒绝
合法/违法 合法/非法 有偿/无偿 有效/失效 生效/失效 成立/撤销 公开/保密 有限/无限 故意/过失
主动/被动 直接/间接 动产/不动产 一般/特别 全部/部分 单独/共同 书面/口头 从重/从轻 加重/减轻
从重/减轻 开始/结束 首次/再次 国内/国外 境内/境外 最高/最低 至少/至多 内/外 正数/负数
盈利/亏损 购买/出售 扩大/缩小 延长/缩短 允许/禁止 终止/继续 解除/签订 承认/否认 胜诉/败诉
上级/下级 中央/地方 before/after above/below more/less more/fewer most/least maximum/minimum
increase/decrease increase/reduce higher/lower highest/lowest larger/smaller
largest/smallest first/last older/younger oldest/youngest longer/shorter include/exclude
allow/forbid permit/prohibit accept/refuse accept/reject open/close begin/end start/end
start/stop north/south east/west northern/southern eastern/western early/late earlier/later
always/never all/some inside/outside import/export buy/sell win/lose won/lost male/female
public/private upper/lower left/right former/latter true/false legal/illegal valid/invalid
paid/unpaid full/empty
"""
_PARTY_PAIRS = """
用人单位/劳动者 雇主/雇员 出租人/承租人 出卖人/买受人 卖方/买方 卖家/买家 买家/商家
债权人/债务人 甲方/乙方 甲/乙 原告/被告 赠与人/受赠人 委托人/受托人 发包人/承包人
发包方/承包方 定作人/承揽人 贷款人/借款人 出借人/借款人 保证人/债权人 保证人/债务人
抵押人/抵押权人 出质人/质权人 寄存人/保管人 存货人/保管人 托运人/承运人 投保人/保险人
被保险人/保险人 丈夫/妻子 夫/妻 男方/女方 父亲/母亲 父母/子女 监护人/被监护人
继承人/被继承人 遗嘱人/继承人 扶养人/被扶养人 侵权人/被侵权人 受害人/加害人
被害人/犯罪嫌疑人 被害人/被告人 申请人/被申请人 上诉人/被上诉人 经营者/消费者 生产者/销售者
销售者/消费者 公司/股东 股东/董事 董事/监事 法人/自然人 转让人/受让人 出让人/受让人
收养人/送养人 收养人/被收养人 甲公司/乙公司 总公司/分公司 母公司/子公司 许可人/被许可人
让与人/受让人 业主/物业服务人 中介人/委托人 代理人/被代理人 代理人/委托人 行政机关/当事人
行政机关/相对人 人民法院/人民检察院 公安机关/人民检察院 单位/个人 网络服务提供者/网络用户
employer/employee lessor/lessee landlord/tenant buyer/seller purchaser/vendor
creditor/debtor plaintiff/defendant lender/borrower parent/child husband/wife
guarantor/guarantee insurer/insured teacher/student doctor/patient owner/keeper owner/tenant
client/contractor donor/recipient principal/agent mother/father son/daughter brother/sister
applicant/respondent customer/supplier licensor/licensee manager/worker
"""


GENERAL = frozenset(
    _listed(
        """
当事人 单位 个人 公司 法人 自然人 双方 一方
"""
    )
)
"""Parties that may be meant by a name of another kind: a lessor is a party to the contract."""

JOINING = frozenset(_listed("或者 以及 还是 亦即"))
"""Chinese words that only join others (或者 ends like the name of a role)."""

NO_PARTY = frozenset(
    _listed("地方 布局 终局 格局 结局 致人 杀人 伤人 害人 另一方面 一方面 方方面面")
)
"""What ends like the name of a role and is none."""

ANYBODY = frozenset(_listed("他人 个人 本人 对方 一方 双方 各方 另一方 任何人"))
"""Parties of whom a sentence tells by the words around them who they are."""


def _both_ways(table: str) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in table.split():
        one, other = pair.split("/")
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES = _both_ways(_PAIRS)
"""Words that cannot stand for each other, as they are written."""

COUNTERPARTS = _both_ways(_PARTY_PAIRS)
"""Who stands on the two sides of a relation."""

PARTY_ENDS = _listed(
    """
人 者 方 单位 公司 机关 机构 部门 法院 检察院 当事人 子女 父母 配偶 企业 组织 委员会 政府 局
商户 股东 董事 监事 业主 丈夫 妻子 双方 银行 学校 医院 会议
"""
)
"""How Chinese names of roles end."""

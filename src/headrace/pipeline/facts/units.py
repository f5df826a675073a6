"""Units of measure in Chinese and English, each as a multiple of one that stands for its kind."""

from __future__ import annotations

from fractions import Fraction

_TABLE = """
month 1: 个月 个月份 months month
month 12: 周年 年度 年 years year
day 1: 日历日 自然日 日 天 days day
day 7: 个星期 星期 周 weeks week
workday 1: 个工作日 工作日 个工作天
hour 1: 个小时 小时 个钟头 钟头 hours hour hrs h
hour 1/60: 分钟 minutes minute mins min
hour 1/3600: 秒钟 秒 seconds second secs sec
hour 1/3600000: 毫秒 milliseconds millisecond ms
yuan 1: 元人民币 元整 圆整 元 块钱 yuan rmb cny
crown 1: 克朗 crowns crown
dollar 1: 美元 美金 dollars dollar usd
euro 1: 欧元 euros euro eur
pound 1: 英镑 gbp
age 1: 周岁 岁
percent 1: % percent
metre 1: 米 metres metre meters meter m
metre 1000: 公里 千米 kilometres kilometre kilometers kilometer km
metre 1/100: 厘米 公分 centimetres centimetre centimeters centimeter cm
metre 1/1000: 毫米 millimetres millimetre millimeters millimeter mm
metre 1609/1: miles mile 英里
foot 1: feet foot ft 英尺
area 1: 平方米 平米 m2
area 1000000: 平方公里 平方千米 km2
area 10000: 公顷 hectares hectare ha
mu 1: 亩
volume 1: 立方米 m3
litre 1: 升 litres litre liters liter
litre 1/1000: 毫升 millilitres millilitre ml
gram 1: 克 grams gram g
gram 1000: 公斤 千克 kilograms kilogram kg
gram 500: 斤
gram 1000000: 吨 tonnes tonne tons ton
decibel 1: 分贝 decibels decibel db
degree 1: 摄氏度 degrees degree 度
byte 1: 字节 bytes byte
hertz 1: 赫兹 hz
hertz 1000: khz
hertz 1000000: mhz 兆赫
hertz 1000000000: ghz 吉赫
watt 1: 瓦 watts watt w
watt 1000: 千瓦 kw
fold 1: 倍 times
occasion 1: 次
person 1: 名 人 位 persons person people
household 1: 户
share 1: 股
kind 1: 种 类
"""
_CLASSIFIERS = "个 件 份 项 家 套 台 辆 张 层 级 笔 票 只 头 条 艘 所 间 部 本 篇 处 段 步 组 期 款"
"""Words that count things and are no measure: the same number may go with another of them."""

_OWN: dict[str, tuple[str, Fraction]] = {}
for _line in _TABLE.strip().splitlines():
    _head, _, _forms = _line.partition(":")
    _base, _factor = _head.split()
    for _form in _forms.split():
        _OWN[_form] = (_base, Fraction(_factor))
for _form in _CLASSIFIERS.split():
    _OWN[_form] = ("", Fraction(1))

_NOT_BEFORE = {"人": "(?![民员身事格])", "部": "(?![分门])"}
"""What makes another word of a unit: 一人民法院, 两部分."""

_HAN = sorted((form for form in _OWN if not form.isascii()), key=len, reverse=True)
_LATIN = sorted((form for form in _OWN if form.isascii() and form != "%"), key=len, reverse=True)
HAN = "|".join(form + (_NOT_BEFORE.get(form, "")) for form in _HAN)
LATIN = (
    r"(?:(?:calendar|consecutive|full|whole|more|additional|further|percentage)[\s-]+){0,2}"
    rf"(?:(?:working|business)[\s-]+days?|square\s+(?:metres?|meters?)|{'|'.join(_LATIN)})\b"
)
UNIT = rf"(?:{HAN}|%|(?i:{LATIN})|per\s?cent\b)"


def unit(text: str) -> tuple[str, Fraction]:
    """The kind of a unit as it is written, and how many of the kind's own unit it is: a year is
    12 months, a kilometre 1,000 metres. `("", 1)` for what only counts."""
    plain = " ".join(text.lower().replace("-", " ").split())
    if plain in _OWN:
        return _OWN[plain]
    if "square" in plain:
        return "area", Fraction(1)
    if plain.startswith(("working day", "business day")):
        return "workday", Fraction(1)
    if plain == "per cent":
        return "percent", Fraction(1)
    return _OWN.get(plain.rpartition(" ")[2], ("", Fraction(1)))

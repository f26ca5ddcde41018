"""Rules of every operator for property tests, of the types that their operators expect, and contexts for them.

What is left to chance is the structure. Values of one type stay among themselves where the oracle departs from JsonLogic: those
departures are listed, and shown, in test_oracle.py.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

VARIANTS = {"on": 1, "off": 2, "third": 3, "true": 4, "false": 5}
STRICT = ["1.0.0", "1.2.3", "2.0.0-rc.1", "2.0.0"]
VERSIONS = [*STRICT, "v2.1.0", "2.1", "3", "1.2.3+7", "no version"]
TEXTS = ["", "a", "abc", "bc", "é", "free", "10"]
EVALUATORS: dict[str, Any] = {
    "adult": {">=": [{"var": "n"}, 3]},
    "free": {"in": [{"var": "s"}, ["free", "abc"]]},
}
AFTER_2020 = {"<": [1_577_836_800, {"var": "$flagd.timestamp"}, 9_999_999_999]}
DEPTH = 3

Rule = st.SearchStrategy[Any]


def mostly(usual: Rule, seldom: Rule) -> Rule:
    """Four times in five the first."""
    return st.sampled_from([usual, usual, usual, usual, seldom]).flatmap(lambda chosen: chosen)


small = st.integers(-9, 9)
texts = st.sampled_from(TEXTS)

contexts = st.fixed_dictionaries(
    {"n": small, "f": st.integers(-8, 8).map(lambda n: n / 2), "s": texts, "b": st.booleans()},
    optional={
        "l": st.lists(small, max_size=4),
        "words": st.lists(texts, max_size=3),
        "u": st.fixed_dictionaries({}, optional={"c": texts, "n": small}),
        "v": st.sampled_from(VERSIONS),
    },
)


users = mostly(st.sampled_from([f"user-{number}" for number in range(9)]), st.sampled_from([None, "", "ü"]))


def _made(operator: str, *arguments: Rule) -> Rule:
    return st.tuples(*arguments).map(lambda values: {operator: list(values)})


def _many(operator: str, argument: Rule, most: int = 3) -> Rule:
    return st.lists(argument, min_size=1, max_size=most).map(lambda values: {operator: values})


def numbers(depth: int = 0) -> Rule:
    """Something that gives a number."""
    known = [small, st.sampled_from([{"var": "n"}, {"var": ["n", 4]}, {"var": "f"}, {"var": ["u.n", 1]}, {"var": ["none", 2]}])]
    if depth >= DEPTH:
        return st.one_of(known)
    inner = numbers(depth + 1)
    sums = {"reduce": [{"var": ["l", []]}, {"+": [{"var": "accumulator"}, {"var": "current"}]}, 0]}
    return st.one_of(
        *known, _many("+", inner), _made("*", inner, inner), _made("-", inner, inner), _many("-", inner, 1),
        _made("/", inner, st.sampled_from([1, 2, 4, -2])), _made("%", st.integers(0, 9), st.integers(1, 4)),
        _many("min", inner), _many("max", inner), st.just(sums), _made("if", booleans(depth + 1), inner, inner),
        _made("?:", booleans(depth + 1), inner, inner), st.sampled_from([{"var": {"cat": ["n"]}}, {"var": ["l.0", 3]}]),
    )  # fmt: skip


def strings(depth: int = 0) -> Rule:
    """Something that gives a text."""
    known = [texts, st.sampled_from([{"var": "s"}, {"var": ["u.c", "x"]}, {"var": "$flagd.flagKey"}, {"var": ["none", "y"]}])]
    if depth >= DEPTH:
        return st.one_of(known)
    inner = strings(depth + 1)
    return st.one_of(
        *known, _many("cat", inner | small), _made("substr", inner, st.integers(-4, 4)),
        _made("substr", inner, st.integers(0, 4), st.integers(-2, 3)), _made("if", booleans(depth + 1), inner, inner),
        _made("or", inner, inner), _made("and", inner, inner),
    )  # fmt: skip


def lists(depth: int = 0) -> Rule:
    """Something that gives a list of numbers."""
    known = [st.lists(small, max_size=3), st.just({"var": ["l", []]})]
    if depth >= DEPTH:
        return st.one_of(known)
    inner = lists(depth + 1)
    item = st.sampled_from([{">": [{"var": ""}, 0]}, {"<": [-3, {"var": ""}, 5]}])
    step = st.sampled_from([{"+": [{"var": ""}, 1]}, {"*": [{"var": ""}, 2]}])
    return st.one_of(*known, _made("merge", inner, inner), _made("filter", inner, item), _made("map", inner, step))


def booleans(depth: int = 0) -> Rule:
    """Something that gives true, false or null."""
    names = st.lists(st.sampled_from(["n", "s", "u.c", "none", "v"]), min_size=1, max_size=3)
    known = [st.booleans(), st.sampled_from([{"var": "b"}, {"$ref": "adult"}, {"$ref": "free"}, AFTER_2020])]
    if depth >= DEPTH:
        return st.one_of(known)
    deeper = depth + 1
    inner, number, text = booleans(deeper), numbers(deeper), strings(deeper)
    signs = st.sampled_from(["<", "<=", ">", ">="])
    version = st.sampled_from([*STRICT, {"var": "v"}, {"cat": ["v", "2"]}, {"var": "s"}])
    equal = st.sampled_from(["==", "!=", "===", "!=="])
    item = st.just({">": [{"var": ""}, 1]})
    return st.one_of(
        *known, _made("!", inner), _made("!!", inner | text | number), _many("and", inner), _many("or", inner),
        st.tuples(signs, number, number).map(lambda one: {one[0]: [one[1], one[2]]}),
        st.tuples(signs, text, text).map(lambda one: {one[0]: [one[1], one[2]]}),
        st.tuples(equal, number, number).map(lambda one: {one[0]: [one[1], one[2]]}),
        st.tuples(equal, text, text).map(lambda one: {one[0]: [one[1], one[2]]}),
        _made("<", number, number, number), _made("<=", number, number, number),
        _made("in", text, text | st.lists(texts, max_size=3) | st.just({"var": "words"})), _made("in", number, lists(deeper)),
        _made("starts_with", text | st.just({"var": "none"}), text), _made("ends_with", text, text),
        _made("sem_ver", version, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "^", "~"]), version),
        _made("all", lists(deeper), item), _made("some", lists(deeper), item), _made("none", lists(deeper), item),
        names.map(lambda missing: {"!": [{"missing": missing}]}),
        st.tuples(st.integers(0, 2), names).map(lambda one: {"!!": [{"missing_some": list(one)}]}),
    )  # fmt: skip


def fractions(depth: int) -> Rule:
    """A split, in shorthand or with a bucketing value, of plain or computed weights and variants."""
    some = st.integers(1, 100)
    weight = mostly(some, _made("if", booleans(DEPTH - 1), some, some) | _made("-", small, small) | st.just(0))
    variant = st.sampled_from(list(VARIANTS)) | (targetings(depth + 1) if depth < DEPTH else st.just("on"))
    share = st.tuples(variant, weight).map(list) | variant.map(lambda one: [one])
    joined = {"cat": [{"var": "$flagd.flagKey"}, {"var": ["targetingKey", ""]}]}
    known = st.sampled_from([{"var": "s"}, {"var": "n"}, {"var": "f"}, {"var": "b"}, joined])
    by = mostly(known, st.sampled_from([{"var": "none"}, {"var": "u.c"}]))
    shares = st.lists(share, min_size=1, max_size=4)
    return st.tuples(st.none() | by, shares).map(lambda one: {"fractional": one[1] if one[0] is None else [one[0], *one[1]]})


def targetings(depth: int = 0) -> Rule:
    """What may stand as a flag's targeting: a variant, true, false or null in the end."""
    known = mostly(st.sampled_from(list(VARIANTS)), st.none())
    if depth >= DEPTH:
        return known
    inner = targetings(depth + 1)
    ladder = st.lists(st.tuples(booleans(depth + 1), inner), min_size=1, max_size=3)
    short = ladder.map(lambda steps: {"if": [part for step in steps for part in step]})
    whole = st.tuples(ladder, inner).map(lambda one: {"if": [*(part for step in one[0] for part in step), one[1]]})
    return mostly(whole | fractions(depth + 1), short)


def _is_rule(rule: Any) -> bool:
    return isinstance(rule, dict)


_targeted, _split = targetings().filter(_is_rule), fractions(1)
targeting_rules = mostly(_targeted | _split, booleans().filter(_is_rule))

many_texts = st.lists(st.sampled_from(["a", "b", "free", "1.0"]), min_size=1, max_size=3)
leads = st.one_of(
    many_texts.map(lambda given: {"in": [{"var": "x"}, given]}),
    texts.map(lambda given: {"===": [{"var": "x"}, given]}),
    texts.map(lambda given: {"==": [given, {"var": ["x"]}]}),
)
steps = leads | leads.map(lambda lead: {"and": [lead]}) | st.tuples(leads, booleans(DEPTH - 1)).map(
    lambda both: {"and": ["a name", *both]}
)  # fmt: skip
ladders = st.lists(st.tuples(steps, st.sampled_from([*VARIANTS, None])), min_size=4, max_size=9).map(
    lambda rules: {"if": [part for rule in rules for part in rule]}
)
"""Rules in a row that ask for one attribute, `x`, first."""

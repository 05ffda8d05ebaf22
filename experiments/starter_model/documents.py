"""Synthetic documents: facts drawn from the relations, written as sentences, with their questions and answers."""

import random
from dataclasses import dataclass

import facts
import lexicon
import names

_VERBS = tuple((v.split(":")[0], v.split(":")[1]) for v in lexicon.VERBS)
_FILLERS = (
    "The {a} {n} was {b}.",
    "Many people {p} the {n} that day.",
    "Nobody {p} the {a} {n}.",
    "It was a {a} day.",
    "The {n} stood near the {m}.",
    "There was also a {a} {n}.",
    "Some say the {n} was {a}.",
    "A {n} and a {m} were there too.",
)
_JA_FILLERS = ("その日は静かでした。", "町には人が多くいました。", "天気は良かったです。", "これは古い話です。")
_SUBJECTS = ("person", "company", "product", "place")


@dataclass(frozen=True)
class Fact:
    """One stated fact: its sentence, the questions that ask for it, its answer and its field labels."""

    subject: str
    key: str
    sentence: str
    questions: tuple[str, ...]
    answer: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """A text with the facts it states, in any order."""

    text: str
    facts: tuple[Fact, ...]
    japanese: bool = False


def _pick(rng: random.Random, texts: tuple[str, ...], held_out: int) -> str:
    """One template of the wanted part; a measuring document may use training templates for half its sentences."""
    return rng.choice(facts.pick(texts, held_out))


def relation_fact(rng: random.Random, relation: facts.Relation, subject: str, held_out: int) -> Fact:
    """States one relation about a subject."""
    if relation.held_out:
        state, ask = rng.choice(relation.statements), tuple(relation.questions)
    else:
        state, ask = _pick(rng, relation.statements, held_out), facts.pick(relation.questions, held_out)
    value = names.draw(relation.value, rng, held_out)
    while value == subject:
        value = names.draw(relation.value, rng, held_out)
    questions = tuple(q.format(s=subject) for q in ask)
    return Fact(subject, relation.key, _sentence(state.format(s=subject, v=value)), questions, value, relation.labels)


def _sentence(text: str) -> str:
    """Capitalises the first letter."""
    return text[:1].upper() + text[1:]


def generic_fact(rng: random.Random, subject: str, attribute: str, held_out: int) -> Fact:
    """States an attribute, named by any common noun, of a subject."""
    value = names.draw(
        rng.choice(("phrase", "phrase", "noun", "pseudo", "thing", "number", "code", "date")), rng, held_out
    )
    state = _pick(rng, facts.GENERIC_STATEMENTS, held_out).format(a=attribute, s=subject, v=value)
    questions = tuple(q.format(a=attribute, s=subject) for q in facts.pick(facts.GENERIC_QUESTIONS, held_out))
    return Fact(subject, f"attr:{attribute}", _sentence(state), questions, value, (attribute,))


def event_facts(rng: random.Random, held_out: int) -> tuple[Fact, ...]:
    """States one event; four facts share its sentence."""
    verb, past = rng.choice(_VERBS)
    roles = {
        "who": names.draw("person", rng, held_out),
        "what": names.draw(rng.choice(("thing", "noun")), rng, held_out),
        "where": names.draw("place", rng, held_out),
        "when": names.draw(rng.choice(("date", "date", "year")), rng, held_out),
    }
    words = {**roles, "verb": verb, "past": past}
    sentence = _sentence(_pick(rng, facts.EVENT_STATEMENTS, held_out).format(**words))
    if roles["when"].isdigit():
        sentence = sentence.replace(" on " + roles["when"], " in " + roles["when"]).replace(
            "On " + roles["when"], "In " + roles["when"]
        )
    made = []
    for role, asks in facts.EVENT_QUESTIONS.items():
        questions = tuple(q.format(**words) for q in facts.pick(asks, held_out))
        made.append(Fact(roles["who"], f"event:{role}:{roles['what']}", sentence, questions, roles[role], (role,)))
    return tuple(made)


def _ja_value(rng: random.Random, kind: str, held_out: int) -> str:
    """A Japanese name or value."""
    pools = {
        "ja_person": lexicon.JA_SURNAMES,
        "ja_place": lexicon.JA_PLACES,
        "ja_job": lexicon.JA_JOBS,
        "ja_thing": lexicon.JA_THINGS,
        "ja_colour": lexicon.JA_COLOURS,
    }
    if kind == "ja_year":
        return f"{names.year(rng, held_out)}年"
    if kind in ("ja_person", "ja_place"):
        part = [w for w in pools[kind] if names.is_held_out(w) == bool(held_out)]
        return rng.choice(part)
    return rng.choice(pools[kind])


def ja_fact(rng: random.Random, relation: facts.Relation, subject: str, held_out: int) -> Fact:
    """States one Japanese fact."""
    value = _ja_value(rng, relation.value, held_out)
    state = _pick(rng, relation.statements, held_out).format(s=subject, v=value)
    questions = tuple(q.format(s=subject) for q in facts.pick(relation.questions, held_out))
    return Fact(subject, relation.key, state, questions, value, relation.labels)


def _subject_facts(rng: random.Random, kind: str, subject: str, count: int, held_out: int) -> list[Fact]:
    """Several facts about one subject, from its relations and from generic attributes."""
    pool = [r for r in facts.RELATIONS if r.subject == kind and (held_out == names.TEMPLATES or not r.held_out)]
    rng.shuffle(pool)
    generic = rng.randint(0, count) if rng.random() < 0.6 else 0
    made = [relation_fact(rng, r, subject, held_out) for r in pool[: count - generic]]
    for attribute in rng.sample(lexicon.NOUNS, count - len(made)):
        made.append(generic_fact(rng, subject, attribute, held_out))
    return made


def _list_facts(rng: random.Random, count: int, held_out: int) -> list[Fact]:
    """The same relation or attribute stated of several subjects: the subject alone tells them apart."""
    kind = rng.choice(_SUBJECTS)
    subjects: list[str] = []
    while len(subjects) < count:
        name = names.draw(kind if rng.random() < 0.7 else "pseudo", rng, held_out)
        if name not in subjects:
            subjects.append(name)
    if rng.random() < 0.5:
        attribute = rng.choice(lexicon.NOUNS)
        return [generic_fact(rng, s, attribute, held_out) for s in subjects]
    relation = rng.choice(
        [r for r in facts.RELATIONS if r.subject == kind and (held_out == names.TEMPLATES or not r.held_out)]
    )
    return [relation_fact(rng, relation, s, held_out) for s in subjects]


def _filler(rng: random.Random, japanese: bool) -> str:
    """A sentence without a fact anyone asks for."""
    if japanese:
        return rng.choice(_JA_FILLERS)
    words = {"a": rng.choice(lexicon.ADJECTIVES), "b": rng.choice(lexicon.ADJECTIVES), "n": rng.choice(lexicon.NOUNS)}
    return rng.choice(_FILLERS).format(m=rng.choice(lexicon.NOUNS), p=rng.choice(_VERBS)[1], **words)


def _english_facts(rng: random.Random, count: int, held_out: int) -> list[Fact]:
    """About `count` facts in one of three arrangements: one subject, one relation, or mixed with events."""
    shape = rng.random()
    if shape < 0.3:
        kind = rng.choice(_SUBJECTS)
        return _subject_facts(rng, kind, names.draw(kind, rng, held_out), count, held_out)
    if shape < 0.55:
        return _list_facts(rng, count, held_out)
    made: list[Fact] = []
    while len(made) < count:
        if rng.random() < 0.35:
            made.extend(event_facts(rng, held_out))
        else:
            kind = rng.choice(_SUBJECTS)
            size = min(count - len(made), rng.randint(1, 3))
            made.extend(_subject_facts(rng, kind, names.draw(kind, rng, held_out), size, held_out))
    return made


def _ja_facts(rng: random.Random, count: int, held_out: int) -> list[Fact]:
    """Japanese facts about different people, each with at most one fact per relation."""
    made: dict[tuple[str, str], Fact] = {}
    for _ in range(count * 4):
        subject = _ja_value(rng, "ja_person", held_out)
        relation = rng.choice(facts.JA_RELATIONS)
        if (subject, relation.key) not in made and len(made) < count:
            made[(subject, relation.key)] = ja_fact(rng, relation, subject, held_out)
    return list(made.values())


def _unambiguous(found: list[Fact]) -> list[Fact]:
    """Drops facts whose subject and key, or whose event role, were stated before with another answer."""
    seen: set[tuple[str, str]] = set()
    whats: dict[str, str] = {}
    kept = []
    for fact in found:
        mark = (fact.subject, fact.key if not fact.key.startswith("event:") else "event:" + fact.key.split(":")[1])
        what = fact.key.split(":")[-1] if fact.key.startswith("event:") else ""
        if mark in seen or (what and whats.setdefault(what, fact.sentence) != fact.sentence):
            continue
        seen.add(mark)
        kept.append(fact)
    return kept


def make(
    rng: random.Random, count: int, held_out: int = names.TRAIN, japanese: bool = False, filler: float = 0.2
) -> Document:
    """Writes a document of about `count` facts.

    Args:
        rng: Source of every choice.
        count: How many facts to state.
        held_out: What is held out (see `names.TRAIN`).
        japanese: Whether the document is in Japanese.
        filler: Share of sentences that state nothing asked for.

    Returns:
        The document with its facts; sentences are in random order.
    """
    found = _unambiguous((_ja_facts if japanese else _english_facts)(rng, count, held_out))
    sentences = list(dict.fromkeys(f.sentence for f in found))
    sentences += [_filler(rng, japanese) for _ in range(sum(rng.random() < filler for _ in sentences))]
    rng.shuffle(sentences)
    return Document(("" if japanese else " ").join(sentences), tuple(found), japanese)

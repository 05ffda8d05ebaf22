"""Relations: how a fact is stated, asked for and labelled, in English and Japanese.

The last statement and the last question of every relation are held out (used only for measuring), and so
are whole relations marked with `held_out=True`.
"""

from dataclasses import dataclass

import names


@dataclass(frozen=True)
class Relation:
    """One kind of fact: subject kind, value kind, statements, questions and field labels."""

    key: str
    subject: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    labels: tuple[str, ...]
    held_out: bool = False


def _rel(
    key: str, subject: str, value: str, statements: str, questions: str, labels: str, held: bool = False
) -> Relation:
    """Builds a relation from '|'-separated texts."""
    return Relation(
        key, subject, value, tuple(statements.split("|")), tuple(questions.split("|")), tuple(labels.split()), held
    )


RELATIONS: tuple[Relation, ...] = (
    _rel(
        "lives",
        "person",
        "place",
        "{s} lives in {v}.|The home of {s} is in {v}.|{v} is where {s} lives.|{s} has a house in {v}.|{s} settled in {v}.",
        "Where does {s} live?|In which town does {s} live?|What is the home town of {s}?|{s} lives in which place?",
        "city home town",
    ),
    _rel(
        "job",
        "person",
        "job",
        "{s} works as a {v}.|{s} is a {v}.|The job of {s} is {v}.|{s} has been a {v} for years.|{s} earns a living as a {v}.",
        "What is the job of {s}?|What does {s} work as?|What does {s} do?|Which job does {s} have?",
        "job role work",
    ),
    _rel(
        "born",
        "person",
        "year",
        "{s} was born in {v}.|In {v}, {s} was born.|The birth year of {s} is {v}.|{s} came into the world in {v}.",
        "When was {s} born?|In what year was {s} born?|What is the birth year of {s}?|Which year was {s} born in?",
        "born birth_year",
    ),
    _rel(
        "pet",
        "person",
        "animal",
        "{s} has a {v}.|The pet of {s} is a {v}.|{s} keeps a {v} at home.|A {v} lives with {s}.|{s} owns a {v}.",
        "What pet does {s} have?|Which animal does {s} keep?|What is the pet of {s}?|What animal belongs to {s}?",
        "pet animal",
    ),
    _rel(
        "likes",
        "person",
        "colour",
        "{s} likes {v}.|The favourite colour of {s} is {v}.|{s} prefers the colour {v}.|Above all colours {s} loves {v}.",
        "Which colour does {s} like?|What is the favourite colour of {s}?|What colour does {s} prefer?|{s} likes which colour?",
        "colour color",
    ),
    _rel(
        "employer",
        "person",
        "company",
        "{s} works for {v}.|{v} employs {s}.|{s} was hired by {v}.|{s} has a post at {v}.|{s} joined {v}.",
        "Who does {s} work for?|Which company employs {s}?|Where does {s} work?|What is the employer of {s}?",
        "company employer",
    ),
    _rel(
        "friend",
        "person",
        "person",
        "{s} is a friend of {v}.|The best friend of {s} is {v}.|{s} often meets {v}.|{s} grew up with {v}.",
        "Who is the friend of {s}?|Who is the best friend of {s}?|Who does {s} often meet?|Who is {s} friends with?",
        "friend",
    ),
    _rel(
        "founded",
        "company",
        "year",
        "{s} was founded in {v}.|In {v}, {s} was started.|{s} opened its doors in {v}.|{s} dates from {v}.",
        "When was {s} founded?|In what year was {s} started?|What year did {s} open?|Since which year does {s} exist?",
        "founded year",
    ),
    _rel(
        "boss",
        "company",
        "person",
        "{s} is led by {v}.|{v} leads {s}.|The head of {s} is {v}.|{v} runs {s}.|{v} is in charge of {s}.",
        "Who leads {s}?|Who is the head of {s}?|Who runs {s}?|Who is in charge of {s}?",
        "leader head",
    ),
    _rel(
        "based",
        "company",
        "place",
        "{s} is based in {v}.|The main office of {s} is in {v}.|{s} has its seat in {v}.|{v} is the home of {s}.",
        "Where is {s} based?|Where is the main office of {s}?|In which town is {s}?|What is the seat of {s}?",
        "location city",
    ),
    _rel(
        "makes",
        "company",
        "product",
        "{s} makes the {v}.|The {v} is made by {s}.|{s} sells the {v}.|The best product of {s} is the {v}.",
        "What does {s} make?|Which product does {s} sell?|What is the product of {s}?|What is made by {s}?",
        "product",
    ),
    _rel(
        "staff",
        "company",
        "number",
        "{s} has {v} workers.|{v} people work at {s}.|{s} employs {v} people.|The staff of {s} counts {v} people.",
        "How many workers does {s} have?|How many people work at {s}?|How many people does {s} employ?|What is the staff of {s}?",
        "staff employees",
    ),
    _rel(
        "price",
        "product",
        "price",
        "The {s} costs {v}.|The price of the {s} is {v}.|You can buy the {s} for {v}.|The {s} sells for {v}.",
        "How much does the {s} cost?|What is the price of the {s}?|What does the {s} sell for?|For how much can you buy the {s}?",
        "price cost",
    ),
    _rel(
        "pcolour",
        "product",
        "colour",
        "The {s} is {v}.|The colour of the {s} is {v}.|The {s} comes in {v}.|They paint every {s} {v}.",
        "What colour is the {s}?|What is the colour of the {s}?|In which colour does the {s} come?|Which colour does the {s} have?",
        "colour finish",
    ),
    _rel(
        "released",
        "product",
        "year",
        "The {s} was released in {v}.|In {v} the {s} came out.|The {s} has been on sale since {v}.|The {s} appeared in {v}.",
        "When was the {s} released?|In what year did the {s} come out?|Since when is the {s} on sale?|When did the {s} appear?",
        "released year",
    ),
    _rel(
        "model",
        "product",
        "code",
        "The model number of the {s} is {v}.|The {s} has the code {v}.|On the {s} you read {v}.|{v} is the code of the {s}.",
        "What is the code of the {s}?|What is the model number of the {s}?|Which code has the {s}?|What code does the {s} carry?",
        "code model",
    ),
    _rel(
        "people",
        "place",
        "number",
        "{s} has {v} people.|{v} people live in {s}.|The population of {s} is {v}.|{s} counts {v} inhabitants.",
        "How many people live in {s}?|What is the population of {s}?|How many people does {s} have?|How large is {s}?",
        "population inhabitants",
    ),
    _rel(
        "mayor",
        "place",
        "person",
        "The mayor of {s} is {v}.|{v} is the mayor of {s}.|{s} chose {v} as mayor.|{v} governs {s}.",
        "Who is the mayor of {s}?|Who did {s} choose as mayor?|What is the name of the mayor of {s}?|Who governs {s}?",
        "mayor",
    ),
    _rel(
        "known",
        "place",
        "noun",
        "{s} is known for its {v}.|{s} is famous for its {v}.|People visit {s} for its {v}.|The pride of {s} is its {v}.",
        "What is {s} known for?|What is {s} famous for?|Why do people visit {s}?|What is the pride of {s}?",
        "famous_for known_for",
    ),
    _rel(
        "near",
        "place",
        "place",
        "{s} is near {v}.|{s} lies close to {v}.|The road from {s} goes to {v}.|Not far from {s} is {v}.",
        "Which place is near {s}?|What is {s} close to?|Where does the road from {s} go?|What lies close to {s}?",
        "near",
    ),
    _rel(
        "moved",
        "person",
        "year",
        "{s} moved there in {v}.|In {v}, {s} came to the country.|{s} arrived in {v}.",
        "When did {s} arrive?|In what year did {s} come?|What year did {s} move?",
        "arrived",
        True,
    ),
    _rel(
        "rival",
        "company",
        "company",
        "The rival of {s} is {v}.|{s} competes with {v}.|{v} is the main rival of {s}.",
        "Which company competes with {s}?|What is the rival of {s}?|Who is the main rival of {s}?",
        "rival",
        True,
    ),
    _rel(
        "built",
        "product",
        "place",
        "The {s} is built in {v}.|A factory in {v} builds the {s}.|Every {s} leaves a factory in {v}.",
        "Where is the {s} built?|In which town is the {s} built?|Where does the {s} come from?",
        "factory",
        True,
    ),
    _rel(
        "holiday",
        "place",
        "date",
        "The holiday of {s} is on {v}.|{s} celebrates its day on {v}.|On {v} all of {s} dances.",
        "When is the holiday of {s}?|When does {s} celebrate its day?|On which date does {s} dance?",
        "holiday",
        True,
    ),
)

GENERIC_STATEMENTS = (
    "The {a} of {s} is {v}.",
    "{s} has the {a} {v}.",
    "For {s}, the {a} is {v}.",
    "As for the {a} of {s}, it is {v}.",
    "{v} is the {a} of {s}.",
    "{s} gave {v} as the {a}.",
    "{s} ({a}: {v}).",
    "Records show that the {a} of {s} was {v}.",
    "The report lists {v} as the {a} of {s}.",
)
"""Statements about any attribute `{a}`; the last one is held out."""

GENERIC_QUESTIONS = (
    "What is the {a} of {s}?",
    "Which {a} does {s} have?",
    "What {a} did {s} give?",
    "What was the {a} of {s}?",
    "Tell me the {a} of {s}.",
    "Name the {a} of {s}.",
    "Which {a} is listed for {s}?",
)
"""Questions about any attribute; the last one is held out."""

EVENT_STATEMENTS = (
    "{who} {past} the {what} in {where} on {when}.",
    "On {when}, {who} {past} the {what} in {where}.",
    "In {where}, {who} {past} the {what} on {when}.",
    "It was {who} who {past} the {what} in {where} on {when}.",
    "The {what} was {past} by {who} on {when}, in {where}.",
)
"""Statements of an event with four roles; the last one is held out."""

EVENT_QUESTIONS: dict[str, tuple[str, ...]] = {
    "who": ("Who {past} the {what}?", "Who {past} the {what} in {where}?", "Which person {past} the {what}?"),
    "what": ("What was {past} by {who}?", "What did {who} {verb}?", "What did {who} {verb} in {where}?"),
    "where": (
        "Where did {who} {verb} the {what}?",
        "In which town did {who} {verb} the {what}?",
        "Where was the {what} {past}?",
    ),
    "when": (
        "When did {who} {verb} the {what}?",
        "On which date did {who} {verb} the {what}?",
        "When was the {what} {past}?",
    ),
}
"""Questions for each role; the last one of each is held out."""

JA_RELATIONS: tuple[Relation, ...] = (
    _rel(
        "ja_lives",
        "ja_person",
        "ja_place",
        "{s}さんは{v}に住んでいます。|{s}さんの家は{v}にあります。|{v}には{s}さんが住んでいます。|{s}さんは{v}で暮らしています。",
        "{s}さんはどこに住んでいますか。|{s}さんの家はどこですか。|{s}さんが住んでいる町はどこですか。",
        "都市 住所",
    ),
    _rel(
        "ja_job",
        "ja_person",
        "ja_job",
        "{s}さんは{v}です。|{s}さんの仕事は{v}です。|{s}さんは{v}として働いています。|{s}さんの職業は{v}です。",
        "{s}さんの仕事は何ですか。|{s}さんは何をしていますか。|{s}さんの職業は何ですか。",
        "職業 仕事",
    ),
    _rel(
        "ja_year",
        "ja_person",
        "ja_year",
        "{s}さんは{v}に生まれました。|{v}に{s}さんが生まれました。|{s}さんの生まれた年は{v}です。",
        "{s}さんはいつ生まれましたか。|{s}さんが生まれた年はいつですか。|{s}さんは何年に生まれましたか。",
        "生年",
    ),
    _rel(
        "ja_has",
        "ja_person",
        "ja_thing",
        "{s}さんは{v}を買いました。|{s}さんが買ったのは{v}です。|{s}さんは店で{v}を買いました。|{v}を買ったのは{s}さんです。",
        "{s}さんは何を買いましたか。|{s}さんが買ったものは何ですか。|{s}さんは店で何を買いましたか。",
        "買い物",
    ),
    _rel(
        "ja_colour",
        "ja_person",
        "ja_colour",
        "{s}さんの好きな色は{v}です。|{s}さんは{v}が好きです。|{s}さんは{v}の服を着ています。",
        "{s}さんの好きな色は何ですか。|{s}さんは何色が好きですか。|{s}さんが好きな色は何色ですか。",
        "色",
    ),
)


def pick(texts: tuple[str, ...], held_out: int) -> tuple[str, ...]:
    """The part of a template list that belongs to training or to measuring."""
    return texts[-1:] if held_out == names.TEMPLATES else texts[:-1]

"""Lets a teacher write rows until there are enough: visit by visit, each reply parsed, checked, kept or rejected."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from dspy.utils.exceptions import AdapterParseError
from pydantic import JsonValue

from promptopt.config.synthesis import SynthesisConfig
from promptopt.evaluation.answer import plain_value
from promptopt.evaluation.in_order import in_order
from promptopt.synthesis.balance import Balance, Visit
from promptopt.synthesis.checks import RejectedError, RowChecker
from promptopt.synthesis.passages import SourceDocument
from promptopt.synthesis.replies import Question, Reply, Teacher
from promptopt.synthesis.report import RejectedReply, SynthesisReport, SyntheticRow
from promptopt.synthesis.signatures import WISHES

_MOST_WRITTEN_SHOWN = 12


@dataclass(frozen=True)
class Synthesis:
    """What came out."""

    rows: tuple[SyntheticRow, ...]
    rejected: tuple[RejectedReply, ...]
    report: SynthesisReport


@dataclass
class _Work:
    config: SynthesisConfig
    documents: dict[str, SourceDocument]
    teacher: Teacher
    checker: RowChecker
    rows: list[SyntheticRow] = field(default_factory=list)
    rejected: list[RejectedReply] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    written: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def passage_of(self, visit: Visit) -> int:
        """Return which passage a visit is about: all of them in a drawn order, again and again."""
        order = list(range(len(self.documents[visit.document].passages)))
        random.Random(f"{self.config.seed}:{visit.document}:passages").shuffle(order)
        return order[visit.number % len(order)]

    def question(self, visit: Visit) -> Question:
        """Return what the teacher is asked on a visit."""
        document = self.documents[visit.document]
        passage = self.passage_of(visit)
        seed = random.Random(f"{self.config.seed}:{visit.document}:{visit.number}").randrange(2**31)
        wishes = WISHES[self.config.language]
        # Each time a passage comes round again, its wish is the next one.
        turn = visit.number // len(document.passages) + passage
        kind = wishes[turn % len(wishes)] if self.config.task == "question_answer" else ""
        written = self.written.get((visit.document, passage), [])[-_MOST_WRITTEN_SHOWN:]
        values: dict[str, JsonValue] = {
            "passage": document.passages[passage],
            "facts": document.passages[passage],
            "keywords": list(document.keywords),
            "wish": " ".join(filter(None, (kind, self.config.wish))) or "-",
            "written": "\n".join(written) or "-",
        }
        inputs = {name: values[name] for name in self.teacher.signature.input_fields}
        return Question(visit.document, visit.number, seed, inputs)

    def take(self, visit: Visit, reply: Reply | None) -> bool:
        """Take a reply; return whether it gave a row."""
        passage = self.passage_of(visit)
        if reply is not None:
            self.replies.append(reply)
        try:
            fields = self._fields(visit, passage, reply)
            assert reply is not None
            measured = self.checker.check(fields, reply.key)
        except RejectedError as error:
            self.rejected.append(
                RejectedReply(
                    attempt=reply.key if reply else "", document_id=visit.document, passage=passage,
                    reason=error.reason, detail=error.detail, completion=reply.completion if reply else "",
                )
            )  # fmt: skip
            return False
        said = fields.get("question") or ", ".join(map(str, self._listed(fields.get("keywords"))))
        self.written.setdefault((visit.document, passage), []).append(str(said))
        provenance: dict[str, JsonValue] = {
            "document_id": visit.document,
            "passage": passage,
            "teacher": self.teacher.name,
            "fingerprint": self.teacher.fingerprint,
            "seed": reply.seed,
            "attempt": reply.key,
            "checks": dict(measured),
        }
        self.rows.append(SyntheticRow(fields=fields, provenance=provenance))
        return True

    def _fields(self, visit: Visit, passage: int, reply: Reply | None) -> dict[str, JsonValue]:
        if reply is None:
            raise RejectedError("prompt_too_long", "the passage does not fit the teacher's context")
        if reply.finish_reason == "length":
            raise RejectedError("cut_off", f"after {reply.completion_tokens} tokens")
        try:
            found = self.teacher.adapter.parse(self.teacher.signature, reply.completion)
        except AdapterParseError as error:
            raise RejectedError("not_parsed", str(error).strip().splitlines()[0][:300]) from error
        document = self.documents[visit.document]
        text = document.passages[passage]
        plain: dict[str, JsonValue] = {
            name: value.strip() if isinstance(value, str) else plain_value(value) for name, value in found.items()
        }
        if self.config.task == "question_answer":
            return {"document": text, "question": plain["question"], "answer": plain["answer"]}
        chosen = list(document.keywords) or [str(word).strip() for word in self._listed(plain.get("keywords"))]
        keywords: list[JsonValue] = list(dict.fromkeys(filter(None, chosen)))
        return {"keywords": keywords, "text": plain["text"], **({"document": text} if text else {})}

    @staticmethod
    def _listed(value: JsonValue) -> list[JsonValue]:
        return value if isinstance(value, list) else []


def synthesize_rows(
    config: SynthesisConfig,
    documents: Sequence[SourceDocument],
    teacher: Teacher,
    checker: RowChecker,
    *,
    bad_rows: int = 0,
    parallel: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Synthesis:
    """Return up to `config.rows` rows over `documents`; the same for the same arguments, if the teacher repeats itself.

    Replies that the teacher's store holds are not asked for again, so the same call goes on where it was killed.

    Args:
        bad_rows: of the source, for the report.
        parallel: requests at once.
        on_progress: called after every reply with the rows and the replies so far.

    Raises:
        LMError: the teacher is broken or out of reach.
        ConfigError: the metric cannot be used on such rows.
        DataError: the metric failed.
    """
    started = time.perf_counter()
    work = _Work(config, {document.id: document for document in documents}, teacher, checker)
    most = max(1, round(config.rows * config.attempts_per_row))
    passages = {document.id: len(document.passages) for document in documents}
    balance = Balance(passages, config.rows, most, config.give_up_after, config.rows_per_document, config.seed)
    while visits := balance.next_round():
        questions = [work.question(visit) for visit in visits]
        with closing(in_order(teacher.ask, questions, parallel, ())) as replies:
            for visit, reply in zip(visits, replies, strict=True):
                balance.note(visit, work.take(visit, reply))
                if on_progress:
                    on_progress(balance.accepted, balance.asked)
    report = _report(work, balance, bad_rows, time.perf_counter() - started)
    return Synthesis(tuple(work.rows), tuple(work.rejected), report)


def _report(work: _Work, balance: Balance, bad_rows: int, wall_seconds: float) -> SynthesisReport:
    config, counts = work.config, balance.rows_of
    rejected = Counter(reply.reason for reply in work.rejected)
    return SynthesisReport(
        name=config.name,
        task=config.task,
        teacher=work.teacher.name,
        fingerprint=work.teacher.fingerprint,
        seed=config.seed,
        wanted=config.rows,
        rows=len(work.rows),
        rejected=dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0]))),
        documents=len(counts),
        documents_without_row=sum(not count for count in counts.values()),
        documents_given_up=len(balance.given_up),
        rows_per_document=(min(counts.values()), max(counts.values())),
        bad_rows=bad_rows,
        calls=len(work.replies),
        prompt_tokens=sum(reply.prompt_tokens for reply in work.replies),
        completion_tokens=sum(reply.completion_tokens for reply in work.replies),
        lm_seconds=round(sum(reply.latency_s for reply in work.replies), 3),
        calls_now=work.teacher.asked,
        wall_seconds=round(wall_seconds, 3),
    )

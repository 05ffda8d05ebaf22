"""Pools: the frozen lists a study indexes into. A study stores indices; `pools.json` says what they mean.

Knows nothing of trials. A pool never changes while a study lives, because Optuna's categorical choices are frozen. What
is found later makes a new generation, in which every old index keeps its meaning.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.errors import ConfigError
from promptopt.layout.spec import Layout

Demo = dict[str, JsonValue]
DemoSet = tuple[Demo, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """Instructions that may join a pool.

    Attributes:
        origin: where they come from, one line for people: who wrote them, from what, with which seed.
    """

    text: str
    origin: str


class PredictorPool(BaseModel):
    """What one predictor may be told. Index 0 of both lists is the untouched program's own.

    Attributes:
        instructions: texts.
        demo_sets: each an ordered set of demos.
        instruction_origins: where each text comes from; empty in files older than this field.
        demo_origins: the same for each demo set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instructions: tuple[str, ...]
    demo_sets: tuple[DemoSet, ...]
    instruction_origins: tuple[str, ...] = ()
    demo_origins: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _origins_fit(self) -> "PredictorPool":
        for what, origins, values in (
            ("instructions", self.instruction_origins, len(self.instructions)),
            ("demo_sets", self.demo_origins, len(self.demo_sets)),
        ):
            if origins and len(origins) != values:
                raise ValueError(f"{len(origins)} origins for {values} {what}; allowed are none, or one for each")
        return self

    def extended(
        self, instructions: Sequence[str | Proposal] = (), demo_sets: Sequence[DemoSet] = (), *, origin: str = ""
    ) -> "PredictorPool":
        """Return this pool with more at the end; what it holds already is not added again, nor is an empty demo set.

        Args:
            origin: of what does not say its own.
        """
        proposals = [text if isinstance(text, Proposal) else Proposal(text, origin) for text in instructions]
        texts = dict.fromkeys(self.instructions)
        new_texts: dict[str, str] = {}
        for proposal in proposals:
            if proposal.text not in texts:
                new_texts.setdefault(proposal.text, proposal.origin)
        known = {_canonical(demos) for demos in self.demo_sets}
        new_sets = {_canonical(demos): tuple(demos) for demos in demo_sets if demos and _canonical(demos) not in known}
        return PredictorPool(
            instructions=(*self.instructions, *new_texts),
            demo_sets=(*self.demo_sets, *new_sets.values()),
            instruction_origins=_joined(self.instruction_origins, len(self.instructions), list(new_texts.values())),
            demo_origins=_joined(self.demo_origins, len(self.demo_sets), [origin] * len(new_sets)),
        )


class Pools(BaseModel):
    """Pools of all predictors of a program, by predictor name.

    Attributes:
        generation: how often these pools were extended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictors: dict[str, PredictorPool]
    generation: int = Field(default=0, ge=0)

    def candidate(self, layout: Layout, instructions: dict[str, int], demo_sets: dict[str, int]) -> Candidate:
        """Return the candidate that these indices (per predictor name) stand for."""
        return Candidate(
            layout=layout,
            predictors={
                name: PredictorPrompt(
                    instructions=pool.instructions[instructions[name]], demos=pool.demo_sets[demo_sets[name]]
                )
                for name, pool in self.predictors.items()
            },
        )

    def extended(
        self,
        instructions: Mapping[str, Sequence[str | Proposal]] | None = None,
        demo_sets: Mapping[str, Sequence[DemoSet]] | None = None,
        *,
        origin: str = "",
    ) -> "Pools":
        """Return the next generation: old values at their old indices, the new ones (by predictor) behind them.

        Where everything is known already, these pools themselves: no new generation, and no new study for it.

        Raises:
            ConfigError: a name is no predictor of these pools.
        """
        instructions, demo_sets = instructions or {}, demo_sets or {}
        unknown = sorted({*instructions, *demo_sets} - self.predictors.keys())
        if unknown:
            raise ConfigError(
                f"These pools have no predictor {', '.join(map(repr, unknown))}; they have {sorted(self.predictors)}. "
                "Name predictors as `program.named_predictors()` does."
            )
        predictors = {
            name: pool.extended(instructions.get(name, ()), demo_sets.get(name, ()), origin=origin)
            for name, pool in self.predictors.items()
        }
        longer = Pools(predictors=predictors, generation=self.generation + 1)
        return longer if not self.continues(longer) else self

    def continues(self, older: "Pools") -> bool:
        """Return whether every index of `older` means the same here: a study of `older` can go on with these pools."""
        return self.predictors.keys() == older.predictors.keys() and all(
            _starts_with(self.predictors[name].instructions, pool.instructions)
            and _starts_with(self.predictors[name].demo_sets, pool.demo_sets)
            for name, pool in older.predictors.items()
        )

    def key(self) -> str:
        """Return the sha256 hex digest of what the indices mean, as canonical JSON.

        Origins are left out: they are notes for people, and no trial depends on them.
        """
        notes = {"instruction_origins", "demo_origins"}
        meaning = self.model_dump(mode="json", exclude={"predictors": {"__all__": notes}})
        return hashlib.sha256(_canonical(meaning)).hexdigest()


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="surrogatepass")


def _starts_with(longer: Sequence[object], shorter: Sequence[object]) -> bool:
    return len(longer) >= len(shorter) and _canonical(longer[: len(shorter)]) == _canonical(shorter)


def _joined(origins: tuple[str, ...], size: int, added: Sequence[str]) -> tuple[str, ...]:
    """Return the origins of `size` old values and of the added ones; no origins at all where none is known."""
    padded = (*origins, *[""] * (size - len(origins)), *added)
    return padded if any(padded) else ()

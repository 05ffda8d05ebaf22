"""One chat row -> the tokens that are given and the tokens that are to be generated. Knows the chat template only.

What is served is: tokens of (rendered prompt + prefill), fixed; then what the model generates until a token that ends
the turn. So the same split is trained. The chat template is asked a second time, for the whole chat with the answer in
it, to learn how it ends an answer, and to find out whether it would write the answer differently.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from promptopt.errors import TrainingError
from promptopt.records import ChatMessage, TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 80


class ChatTokenizer:
    """A tokenizer with its chat template, checked once.

    Args:
        tokenizer: of the student; never changed.
        end_ids: tokens at which generation stops; None = the tokenizer's EOS token.

    Raises:
        TrainingError: the tokenizer has no chat template, or nothing ends its generation.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", end_ids: frozenset[int] | None = None) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise TrainingError(
                f"The tokenizer of {tokenizer.name_or_path or 'the model'} has no chat template, so a chat row has no "
                "defined text. Use the instruct version of the model, or give it one: model.chat_template: chatml, "
                "zephyr, or a Jinja file."
            )
        self._tokenizer = tokenizer
        eos = cast("int | None", tokenizer.eos_token_id)
        self._end_ids = end_ids if end_ids is not None else frozenset([] if eos is None else [eos])
        if not self._end_ids:
            raise TrainingError(
                f"Neither the generation config nor the tokenizer of {tokenizer.name_or_path or 'the model'} names an "
                "EOS token, so generation would never stop. Set eos_token_id in generation_config.json."
            )

    def split_ids(self, row: TrainingRow) -> tuple[list[int], list[int]]:
        """Return (given, generated) token ids of `row`; `generated` ends with the token that ends the turn.

        Raises:
            TrainingError: the template would write this chat differently from what is served, or does not end the
                answer with a token at which generation stops.
        """
        prompt, ending = self._prompt_and_ending(row)
        given_text = prompt + row.prefill
        generated_text = row.completion[len(row.prefill) :]
        given = self._ids(given_text)
        whole = self._ids(prompt + row.completion)
        # Without a merge across the border the rest of the whole is the completion's own tokenisation; taking it from
        # there also spares SentencePiece tokenizers the space they put before a text that stands alone.
        generated = whole[len(given) :] if whole[: len(given)] == given else self._ids(generated_text)
        if self._text([*given, *generated]) != self._text(whole):
            raise TrainingError(
                f"Row {row.id!r}: the {len(given)} prompt tokens followed by the {len(generated)} completion tokens "
                f"read {_tail(self._text([*given, *generated]))!r}, but the text is {_tail(self._text(whole))!r}. The "
                "tokenizer changes the text at the border; end the prefill where a token ends, or drop it."
            )
        if not generated:
            raise TrainingError(f"Row {row.id!r}: its completion {generated_text!r} has no tokens: nothing to learn.")
        return given, [*generated, *self._end_of_turn(ending, row)]

    def given_ids(self, row: TrainingRow, messages: Sequence[ChatMessage]) -> list[int]:
        """Return the token ids of `messages` as a prompt, followed by the prefill of `row`."""
        return self._ids(self._render(row, messages, add_generation_prompt=True) + row.prefill)

    def _prompt_and_ending(self, row: TrainingRow) -> tuple[str, str]:
        """Return the rendered prompt, and what the template writes after the answer."""
        prompt = self._render(row, row.prompt, add_generation_prompt=True)
        answered = (*row.prompt, ChatMessage(role="assistant", content=row.completion))
        chat = self._render(row, answered, add_generation_prompt=False)
        if not chat.startswith(prompt):
            raise TrainingError(
                f"Row {row.id!r}: the prompt ends with {_tail(prompt)!r} when the model is asked, but with the answer "
                f"in place the chat template writes {_tail(chat[: len(prompt)])!r} there. Trained text and served text "
                "would differ; correct the chat template so that both agree (reasoning templates often open a think "
                "block in one of them only)."
            )
        rest = chat[len(prompt) :]
        if not rest.startswith(row.completion):
            raise TrainingError(
                f"Row {row.id!r}: the chat template writes the answer {_head(row.completion)!r} as {_head(rest)!r}. "
                "Trained text and served text would differ. If it trims, remove white space at both ends of the "
                "completion; if it puts a think block in front, use a template without it."
            )
        return prompt, rest[len(row.completion) :]

    def _end_of_turn(self, ending: str, row: TrainingRow) -> list[int]:
        """Return the tokens of `ending` up to the first at which generation stops, that one included."""
        ids = self._ids(ending)
        for position, token in enumerate(ids):
            if token in self._end_ids:
                return ids[: position + 1]
        stops = self._tokenizer.convert_ids_to_tokens(sorted(self._end_ids))
        raise TrainingError(
            f"Row {row.id!r}: the chat template ends an answer with {ending!r}, and none of its {len(ids)} tokens "
            f"stops generation (that is {stops}). A model trained so would never stop. Add the template's end-of-turn "
            "token to eos_token_id in generation_config.json, or make it the tokenizer's eos_token."
        )

    def _render(self, row: TrainingRow, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> str:
        import jinja2

        plain: list[dict[str, str]] = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise TrainingError(
                f"Row {row.id!r}: the chat template refuses these messages (roles: {roles}): {error}. Choose a layout "
                "whose messages the template allows, e.g. with the system role merged into the user's."
            ) from error
        return cast(str, text)

    def _ids(self, text: str) -> list[int]:
        # The template has already written BOS where it belongs, as apply_chat_template(tokenize=True) assumes too.
        encoded: Any = self._tokenizer(text, add_special_tokens=False)
        return list(encoded["input_ids"])

    def _text(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return cast(str, text)


def _head(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _tail(text: str) -> str:
    return text if len(text) <= _SHOWN else "…" + text[-_SHOWN:]

"""The ASGI application: OpenAI's endpoints over one `ServedModel`.

Knows neither the command line nor sockets, nor how the model runs.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from promptopt.errors import ConfigError, ContextLengthError, PromptoptError
from promptopt.serve.access import Guard
from promptopt.serve.answers import AnswerShape, ChatShape, TextShape, as_base64
from promptopt.serve.body import read_json
from promptopt.serve.event_stream import EventStream
from promptopt.serve.failures import (
    CLIENT_GONE,
    RequestRefused,
    answer_failure,
    answer_http_exception,
    json_response,
)
from promptopt.serve.fields import ChatBody, EmbeddingBody, TextBody
from promptopt.serve.prometheus import MEDIA_TYPE, metrics_text
from promptopt.serve.served import ServedModel
from promptopt.serve.waiting import Deadline, all_answers, cancel_all, hand_in, run_on, unless_gone
from promptopt.serve.wanted import Wanted, wanted_of_chat, wanted_of_text

SUBMITTING_THREADS = 4
"""They compile grammars and tokenize; the model's own thread does the work."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the model is offered.

    Attributes:
        name: the id that clients ask for.
        api_key: what they must send; None asks for nothing.
        timeout_s: seconds until a request is given up; None = never.
        embeddings: whether texts are embedded too; the first one costs a second context.
    """

    name: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float | None = None
    embeddings: bool = False


def create_app(served: ServedModel, settings: ServeSettings) -> Starlette:
    """Return the application; whoever runs it closes `served`."""
    offer = _Offer(served, settings)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", offer.chat, methods=["POST"]),
            Route("/v1/completions", offer.complete, methods=["POST"]),
            Route("/v1/embeddings", offer.embed, methods=["POST"]),
            Route("/v1/models", offer.models, methods=["GET"]),
            Route("/v1/models/{name:path}", offer.model, methods=["GET"]),
            Route("/health", offer.health, methods=["GET"]),
            Route("/metrics", offer.metrics, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, key=settings.api_key)],
        exception_handlers={
            RequestRefused: answer_failure,
            PromptoptError: answer_failure,
            HTTPException: answer_http_exception,
            Exception: answer_failure,
        },
    )


class _Offer:
    """The endpoints."""

    def __init__(self, served: ServedModel, settings: ServeSettings) -> None:
        self._served = served
        self._settings = settings
        self._threads = ThreadPoolExecutor(SUBMITTING_THREADS, "promptopt-submit")
        self._embedding_thread = ThreadPoolExecutor(1, "promptopt-embed")
        self._started_at = int(time.time())

    async def chat(self, request: Request) -> Response:
        body = ChatBody.read(await read_json(request))
        self._check_model(body.model)
        # Schemas and grammars are compiled here, which may take a while.
        wanted = await run_on(self._threads, partial(wanted_of_chat, body, self._served.n_ctx))
        return await self._answer(request, wanted, ChatShape(self._settings.name, wanted.draws))

    async def complete(self, request: Request) -> Response:
        body = TextBody.read(await read_json(request))
        self._check_model(body.model)
        wanted = await run_on(self._threads, partial(wanted_of_text, body))
        return await self._answer(request, wanted, TextShape(self._settings.name, wanted.draws))

    async def _answer(self, request: Request, wanted: Wanted, shape: AnswerShape) -> Response:
        deadline = Deadline(self._settings.timeout_s)
        if wanted.stream:
            pending = await deadline.keep(hand_in(self._served, wanted.requests, self._threads, stream=True))
            return EventStream(pending, shape, deadline, include_usage=wanted.include_usage)
        answer = await unless_gone(deadline.keep(self._whole(wanted, shape)), request.receive)
        return answer or Response(status_code=CLIENT_GONE)

    async def _whole(self, wanted: Wanted, shape: AnswerShape) -> Response:
        pending = await hand_in(self._served, wanted.requests, self._threads)
        try:
            return json_response(shape.whole(await all_answers(pending)))
        finally:
            cancel_all(pending)

    async def embed(self, request: Request) -> Response:
        if not self._settings.embeddings:
            raise RequestRefused(
                "This server was started without --embeddings. Start it with that option, or ask another one.",
                code="embeddings_not_served",
            )
        body = EmbeddingBody.read(await read_json(request))
        self._check_model(body.model)
        deadline = Deadline(self._settings.timeout_s)
        answer = await unless_gone(deadline.keep(self._embeddings(body)), request.receive)
        return answer or Response(status_code=CLIENT_GONE)

    async def _embeddings(self, body: EmbeddingBody) -> Response:
        """Embed text by text, so that requests which generate go on in between."""
        texts = [body.input] if isinstance(body.input, str) else body.input
        if not texts:
            raise RequestRefused("The field 'input' is []; at least one text is needed.", param="input")
        data = []
        tokens = 0
        for number, text in enumerate(texts):
            vector, count = await run_on(self._embedding_thread, partial(self._embed_one, number, text))
            shown = as_base64(vector) if body.encoding_format == "base64" else vector
            data.append({"object": "embedding", "index": number, "embedding": shown})
            tokens += count
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json_response({"object": "list", "data": data, "model": self._settings.name, "usage": usage})

    def _embed_one(self, number: int, text: str) -> tuple[list[float], int]:
        try:
            return self._served.embed([text])[0], len(self._served.tokenize(text, special=False))
        except (ConfigError, ContextLengthError) as error:
            code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
            raise RequestRefused(f"input[{number}] cannot be embedded. {error}", param="input", code=code) from error

    async def models(self, _: Request) -> Response:
        return json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return json_response(self._model())

    async def health(self, _: Request) -> Response:
        return json_response({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        return Response(metrics_text(self._served.stats()), media_type=MEDIA_TYPE)

    def _model(self) -> dict[str, object]:
        return {
            "id": self._settings.name,
            "object": "model",
            "created": self._started_at,
            "owned_by": "promptopt",
            "max_model_len": self._served.n_ctx,
        }

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self._settings.name):
            raise RequestRefused(
                f"The model {name!r} is not served here; served is {self._settings.name!r}.",
                status=404,
                param="model",
                code="model_not_found",
            )

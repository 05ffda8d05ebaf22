"""`promptopt serve`: a GGUF behind OpenAI's HTTP interface, until a signal comes."""

import argparse
from pathlib import Path

from promptopt.errors import ConfigError
from promptopt.extras import require

MAX_WAITING = 256
TIMEOUT_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `promptopt serve` takes."""
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--host", default="127.0.0.1", help="others than this machine's own need PROMPTOPT_API_KEY")
    parser.add_argument("--port", type=int, default=8080, help="0 = any free port (default: 8080)")
    parser.add_argument(
        "--n-ctx", type=int, default=4096, help="tokens per prompt with its answer; 0 = the model's own"
    )
    parser.add_argument("--parallel", type=int, help="requests that run at once (default: by memory)")
    parser.add_argument("--n-gpu-layers", type=int, default=0, help="-1 = all (default: 0)")
    parser.add_argument("--n-threads", type=int, help="CPU threads (default: the physical cores)")
    parser.add_argument("--name", help="the id that clients ask for (default: the file name without .gguf)")
    parser.add_argument("--timeout-s", type=float, default=TIMEOUT_S, help=f"per request (default: {TIMEOUT_S:g})")
    parser.add_argument("--embeddings", action="store_true", help="serve /v1/embeddings too")
    parser.add_argument("--isolated", action="store_true", help="a crash in native code fails its own requests only")
    parser.add_argument(
        "--max-waiting", type=int, default=MAX_WAITING, help=f"requests that may wait (default: {MAX_WAITING})"
    )


def serve_model(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM and return 0.

    Raises:
        ConfigError: an argument is wrong, the address is taken, or other machines could ask without a key.
        ModelError: the model cannot be used.
        MissingExtraError: the extra `serve` is not installed.
    """
    for module in ("llama_cpp", "starlette", "uvicorn"):
        require(module)
    from promptopt.lm.llama_cpp.local_chat import LocalChat
    from promptopt.lm.llama_cpp.model import LoadOptions
    from promptopt.serve.access import check_host, key_from_environment
    from promptopt.serve.app import ServeSettings, create_app
    from promptopt.serve.http_server import HttpServer, bind, url_of

    key = key_from_environment()
    check_host(arguments.host, key)
    name = arguments.name or arguments.model.stem
    settings = ServeSettings(name, key, _timeout(arguments.timeout_s), arguments.embeddings)
    taken = bind(arguments.host, arguments.port)
    with taken:
        options = LoadOptions(
            n_ctx=arguments.n_ctx,
            n_gpu_layers=arguments.n_gpu_layers,
            n_threads=arguments.n_threads,
            parallel=arguments.parallel,
            max_waiting=arguments.max_waiting,
        )
        chat = LocalChat(arguments.model, options, isolated=arguments.isolated)
        try:
            ready = f"promptopt serve: {url_of(taken)}/v1 (model {settings.name}, parallel {chat.parallel})"
            server = HttpServer(
                create_app(chat, settings),
                taken,
                on_ready=lambda: print(ready, flush=True),
                end_requests=chat.close,
            )
            server.serve_until_stopped()
        finally:
            chat.close()
    return 0


def _timeout(timeout_s: float) -> float:
    if not timeout_s > 0:
        raise ConfigError(f"--timeout-s is {timeout_s}; allowed are seconds above 0.")
    return timeout_s

"""The process that reads documents: `python -m promptopt.data.document_child`, started by `document_process`.

Files of strangers may crash native code, loop, or ask for all memory. Here they can: this process may take so much
memory and processor time, writes no file, and holds no secret of its parent's environment.

Line by line, stdin brings `{"path", "encoding", "limits"}`, the limits being those of the config. stdout answers 8
bytes of length (big-endian) and as much JSON: `{"title", "pages"}`, `{"problem"}`, or `{"worn": ...}`, which says that
memory ran out and this process ends. A first answer of length 0 says that it is ready.
"""

import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import IO

from promptopt.data.document_formats import MIB, Limits, UnreadableError, read_document

HEADER_BYTES = 8


def main() -> None:
    """Answer requests until stdin ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    answers.write(bytes(HEADER_BYTES))  # ready
    answers.flush()
    for line in sys.stdin.buffer:
        answer = _answer(json.loads(line))
        _send(answers, answer)
        if "worn" in answer:
            return


def _answer(request: dict[str, object]) -> dict[str, object]:
    path, limits, encoding = request["path"], request["limits"], request["encoding"]
    assert isinstance(path, str) and isinstance(limits, dict) and isinstance(encoding, str)
    _limit(limits)
    names = ("file_mib", "unpacked_mib", "pages", "characters")
    try:
        content = read_document(Path(path), Limits(**{name: limits[name] for name in names}), encoding)
    except UnreadableError as error:
        return {"problem": str(error)}
    except MemoryError:
        return {"worn": f"needs more than {limits['memory_mib']} MiB of memory to be read (limits.memory_mib)"}
    except RecursionError:
        return {"problem": "is nested too deeply"}
    except OSError as error:
        return {"problem": f"cannot be read: {error.strerror or error}"}
    return {"title": content.title, "pages": content.pages}


def _limit(limits: dict[str, object]) -> None:
    """Bound this process anew: memory, and processor time from now on. Windows has no such bounds."""
    if os.name != "posix":
        return
    import resource

    seconds, memory_mib = limits["seconds"], limits["memory_mib"]
    assert isinstance(seconds, int | float) and isinstance(memory_mib, int)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The parent keeps the time; processor time ends this process when the parent is gone.
    bounds = {
        resource.RLIMIT_CPU: int(usage.ru_utime + usage.ru_stime + seconds) + 2,
        resource.RLIMIT_AS: memory_mib * MIB,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in bounds.items():
        hard = resource.getrlimit(kind)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some of them
            resource.setrlimit(kind, (soft, hard))


def _send(answers: IO[bytes], answer: dict[str, object]) -> None:
    data = json.dumps(answer, ensure_ascii=False).encode("utf-8")
    answers.write(len(data).to_bytes(HEADER_BYTES, "big") + data)
    answers.flush()


if __name__ == "__main__":
    main()

"""What must not be written down: passwords in database URLs. Knows texts only."""

import re

_CREDENTIALS = re.compile(r"(://[^:/@\s]+):[^@\s]*@")


def without_passwords(text: str) -> str:
    """Return `text` with the password of every `scheme://user:password@host` replaced by `***`."""
    return _CREDENTIALS.sub(r"\1:***@", text)

"""The log: on stderr, one line a record, as text or as JSON.

A record may contain anything that a client has sent. Characters that cannot be printed are escaped,
so that they neither begin a line nor move a terminal's cursor, and long texts are cut. A traceback
follows its line, indented; in JSON it is a field. Records of a call have its facts as `fields`
(`telemetry.call_record`), which the text shows as NAME=VALUE.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

MAX_TEXT_CHARACTERS = 2000
MAX_TRACEBACK_CHARACTERS = 16_000

_PLAIN = re.compile(r"[\w.:/+\[\]-]+", re.ASCII)


def log_to_stderr(level: str, form: str) -> None:
    """Write all records of a level ("info") and above to stderr, as "text" or "json"."""
    # This logger would write a traceback, and the bytes, for every header of a call that is not
    # UTF-8.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def escaped(text: str) -> str:
    """Escape characters that cannot be printed, line breaks of every kind among them."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    """Formats records for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line, and the indented lines of its traceback."""
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {escaped(_message(record))}"
        for name, value in _fields(record).items():
            line += f" {name}={_shown(value)}"
        return "\n    ".join([line, *map(escaped, _traceback(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """Formats records for programs: one object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": _message(record),
            **_fields(record),
        }
        if traceback := _traceback(self, record):
            line["traceback"] = traceback
        return json.dumps(line)


def _message(record: logging.LogRecord) -> str:
    return record.getMessage()[:MAX_TEXT_CHARACTERS]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the end of a record's traceback, which has the error; "" without a traceback."""
    return formatter.formatException(record.exc_info)[-MAX_TRACEBACK_CHARACTERS:] if record.exc_info else ""


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(value)

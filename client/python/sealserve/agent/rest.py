"""REST: version 2 of the Open Inference Protocol over HTTP, with Triton's binary tensors.

A page in a browser of this machine can reach loopback. It is kept out by the token, and by what a
browser sends along: the Host of a name that was bound to 127.0.0.1 after the page was loaded (DNS
rebinding), an Origin, and what the browser says of the site that asks.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from sealserve import __version__
from sealserve.agent.caller_token import Token
from sealserve.agent.http_listener import CANCELLATION, HOST, StartResponse
from sealserve.agent.inference import Answer, Inference, Request
from sealserve.agent.refusals import UNAUTHENTICATED, refusal_of
from sealserve.agent.servicer import EXTENSIONS, NAME, is_ready, metadata_of
from sealserve.agent.telemetry import CONTENT_TYPE, Telemetry
from sealserve.agent.tensors import MAX_TENSORS, Tensor, TensorHead, to_bytes, to_list
from sealserve.errors import InputError

MAX_JSON_BYTES = 16 << 20
"""Of JSON: as Python's objects it takes up to 16 times as much."""

_TYPES = ("application/json", "application/octet-stream")
_HEAD_LENGTH = "Inference-Header-Content-Length"
_MAX_DIGITS = 20


class Reply(NamedTuple):
    """An answer over HTTP."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    head_bytes: int | None = None


class RefusedError(Exception):
    """A request that is refused as one of HTTP."""

    def __init__(self, status: HTTPStatus, text: str, reason: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.reason = reason


class RestApplication:
    """A WSGI application. Threads share it.

    Args:
        inference: answers requests.
        telemetry: counts them; published at /metrics.
        token: that callers have to send; None: they need none.

    Attributes:
        port: where it is served; a request has to name it in its Host.
    """

    def __init__(self, inference: Inference, telemetry: Telemetry, token: Token | None) -> None:
        self._inference = inference
        self._telemetry = telemetry
        self._token = token
        self.port = 0

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        try:
            self._check({name.removeprefix("HTTP_"): value for name, value in environ.items()})
            reply = self._route(environ)
        except RefusedError as error:
            reply = _refused(error.status, error.text, error.reason)
        except Exception as error:  # the server would show and log what the caller has sent
            refusal = refusal_of(error)
            reply = _refused(refusal.http_status, refusal.text, refusal.reason)
        headers = [("Content-Type", reply.content_type), ("Content-Length", str(len(reply.body)))]
        headers += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        if reply.head_bytes is not None:
            headers.append((_HEAD_LENGTH, str(reply.head_bytes)))
        start_response(f"{reply.status.value} {reply.status.phrase}", headers)
        return [reply.body]

    def takes(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request may be answered, by its headers: only then its body is kept."""
        try:
            self._check(headers)
        except RefusedError:
            return False
        return True

    def _check(self, headers: Mapping[str, str]) -> None:
        """Refuse what a browser may have sent for a page, and what has no token."""
        hosts = {f"{name}:{self.port}" for name in (HOST, "localhost")}
        if headers.get("HOST", "").lower() not in hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"the Host has to be {HOST}:{self.port}", "FOREIGN_HOST")
        if "ORIGIN" in headers or headers.get("SEC_FETCH_SITE", "none").lower() != "none":
            raise RefusedError(HTTPStatus.FORBIDDEN, "requests of web pages are refused", "ORIGIN")
        if self._token is not None and not self._token.accepts(headers.get("AUTHORIZATION", "").encode("latin-1")):
            raise RefusedError(HTTPStatus.UNAUTHORIZED, UNAUTHENTICATED.text, UNAUTHENTICATED.reason)

    def _route(self, environ: Mapping[str, Any]) -> Reply:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        name, version, action = _parse_path(path)
        wanted = "POST" if action == "infer" else "GET"
        if method != wanted:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"the method of {quote(path)} is {wanted}", "METHOD")
        match action:
            case "metrics":
                return Reply(HTTPStatus.OK, self._telemetry.published(), CONTENT_TYPE)
            case "live":
                return _json({"live": True})
            case "health":
                ready = is_ready(self._inference)
                return _json({"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
            case "server":
                return _json({"name": NAME, "version": __version__, "extensions": EXTENSIONS})
            case "ready":
                ready = is_ready(self._inference, name, version)
                return _json({"name": name, "ready": ready}, HTTPStatus.OK if ready else HTTPStatus.NOT_FOUND)
            case "metadata":
                return self._run("ModelMetadata", lambda: _metadata(self._inference, name, version))
        body = _body(environ)
        return self._run("ModelInfer", lambda: self._infer(name, version, body, environ))

    def _infer(self, name: str, version: str, body: bytes, environ: Mapping[str, Any]) -> Reply:
        message, raw = _parse_body(body, environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH"))
        outputs = _members(message, "outputs", required=False)
        request = Request(name, version, _tensors(message, raw), [_text(output, "name") for output in outputs])
        answer = self._inference.answer(request, environ[CANCELLATION])
        is_binary = {output["name"]: _parameter(output, "binary_data") for output in outputs}
        return _answered(name, message, answer, is_binary)

    def _run(self, method: str, act: Callable[[], Reply]) -> Reply:
        """Answer a request, and count it."""
        began, refusal = time.perf_counter(), None
        try:
            return act()
        except Exception as error:
            refusal = refusal_of(error)
            return _refused(refusal.http_status, refusal.text, refusal.reason)
        finally:
            self._telemetry.end(method, began, refusal)


def _parse_path(path: str) -> tuple[str, str, str]:
    """Return the model, the version and what is asked of it.

    Raises:
        RefusedError: there is nothing there.
    """
    fixed = {"/v2": "server", "/v2/health/live": "live", "/v2/health/ready": "health", "/metrics": "metrics"}
    if (action := fixed.get(path.rstrip("/"))) is not None:
        return "", "", action
    if not path.startswith("/v2/models/"):
        raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here: see /v2", "PATH")
    rest, _, last = path.removeprefix("/v2/models/").rpartition("/")
    if last not in ("infer", "ready"):
        rest, last = f"{rest}/{last}".removeprefix("/"), "metadata"
    name, _, version = rest.partition("/versions/")
    return name, version, last


def _body(environ: Mapping[str, Any]) -> bytes:
    """Read a body.

    Raises:
        RefusedError: it is of another type, or encoded.
    """
    content_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if content_type and content_type not in _TYPES:  # tritonclient names none
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the content type has to be {_TYPES[0]}", "CONTENT_TYPE")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body without encoding", "CONTENT_ENCODING")
    data: bytes = environ["wsgi.input"].read()
    return data


def _parse_body(body: bytes, head_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON of a body, and the bytes after it.

    Raises:
        InputError: it is no JSON, or too long.
    """
    length = len(body)
    if head_length is not None:
        is_number = head_length.isdecimal() and len(head_length) <= _MAX_DIGITS  # int takes no more than 4300
        if not is_number or (length := int(head_length)) > len(body):
            raise InputError(f"{_HEAD_LENGTH} is not the length of JSON at the beginning of the body")
    if length > MAX_JSON_BYTES:
        raise InputError(f"the JSON has more than {MAX_JSON_BYTES:,} bytes: send binary tensors, or fewer rows at once")
    try:
        message = json.loads(body[:length])
    except (ValueError, RecursionError):
        raise InputError("the body is no JSON") from None
    if not isinstance(message, dict):
        raise InputError("the body is no JSON object")
    return message, memoryview(body)[length:]


def _tensors(message: dict[str, Any], raw: memoryview) -> list[Tensor]:
    """Read the inputs of a request; those with a binary_data_size follow each other in `raw`.

    Raises:
        InputError: they are malformed.
    """
    tensors, start = list[Tensor](), 0
    for tensor in _members(message, "inputs"):
        shape = tensor.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise InputError("an input has no shape: it is a list of whole numbers")
        head = TensorHead(_text(tensor, "name"), _text(tensor, "datatype"), tuple(shape))
        size = _parameters(tensor).get("binary_data_size")
        if size is None:
            tensors.append(head.with_json(tensor.get("data")))
        elif "data" in tensor:
            raise head.fault("it has data beside a binary_data_size: send one of them")
        elif type(size) is not int or not 0 <= size <= len(raw) - start:
            raise head.fault("its binary_data_size is not the length of bytes after the JSON")
        else:
            tensors.append(head.with_bytes(raw[start : start + size]))
            start += size
    if start != len(raw):
        raise InputError("there are bytes after the JSON that no input has")
    return tensors


def _members(message: dict[str, Any], name: str, *, required: bool = True) -> list[dict[str, Any]]:
    members = message.get(name, None if required else [])
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise InputError(f"{name} is not a list of objects")
    if len(members) > MAX_TENSORS:
        raise InputError(f"there are more than {MAX_TENSORS:,} inputs or outputs")
    return members


def _text(member: dict[str, Any], name: str) -> str:
    if not isinstance(text := member.get(name), str):
        raise InputError(f"an input or output has no {name}")
    return text


def _parameters(member: dict[str, Any]) -> dict[str, Any]:
    found = member.get("parameters", {})
    return found if isinstance(found, dict) else {}


def _parameter(member: dict[str, Any], name: str) -> bool | None:
    found = _parameters(member).get(name)
    return found if isinstance(found, bool) else None


def _answered(name: str, message: dict[str, Any], answer: Answer, is_binary: dict[str, bool | None]) -> Reply:
    """Write an answer: each tensor as JSON or binary, as asked for it or else for all."""
    default, outputs, tail = _parameter(message, "binary_data_output"), list[dict[str, Any]](), list[bytes]()
    for tensor in answer.outputs:
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.values.shape),
        }
        asked = is_binary.get(tensor.name)
        if default if asked is None else asked:
            tail.append(to_bytes(tensor))
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = to_list(tensor)
        outputs.append(output)
    body = {"model_name": name, "model_version": answer.version, "outputs": outputs}
    if isinstance(message.get("id"), str):
        body["id"] = message["id"]
    head = json.dumps(body).encode()
    if not tail:
        return Reply(HTTPStatus.OK, head)
    return Reply(HTTPStatus.OK, b"".join((head, *tail)), "application/octet-stream", len(head))


def _metadata(inference: Inference, name: str, version: str) -> Reply:
    message = metadata_of(inference, name, version)
    tensors = {
        field: [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in found]
        for field, found in (("inputs", message.inputs), ("outputs", message.outputs))
    }
    head = {"name": message.name, "versions": list(message.versions), "platform": message.platform}
    return _json({**head, **tensors, "properties": dict(message.properties)})


def _json(body: Any, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    return Reply(status, json.dumps(body).encode())


def _refused(status: HTTPStatus, text: str, reason: str) -> Reply:
    return _json({"error": text, "reason": reason}, status)

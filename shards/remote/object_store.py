"""One request to an object store: a range of an object, or one line that says why not.

The client is obstore (Rust; signs, decrypts and receives without Python's lock). Measured against a
loopback server, processor time a request of 100 KiB and of 1 MiB: obstore 0.28 and 0.60 ms, boto3 1.1
and 1.3 ms, s3fs 1.2 and 1.7 ms. Its threads do not outlive a fork: processes that read must be started
by "spawn" or "forkserver", and a forked one is told so.

Keys, region and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL), or from the machine's role. A message never holds what
the store says beyond its status and code.
"""

import os
import re
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_AGAIN = {408, 425, 429}  # refused now, not for good
_REASONS = ("ConnectionRefused", "TimedOut", "IncompleteBody", "IncompleteMessage", "dns error")
_HINTS = {
    301: "the bucket lies in another region: set AWS_REGION",
    400: "the request was refused: are AWS_REGION and the credentials right?",
    401: "the credentials are not accepted",
    403: "access denied",
    404: "no such object",
    416: "it ends before the bytes that are wanted",
}
_started_in: int | None = None


class TransientError(OSError):
    """A request that may succeed when it is sent again."""


class ObjectStore:
    """Objects below `url`, such as s3://bucket/prefix; also gs://, az:// and https://.

    stalled_s   a request of which nothing comes for so long, and
    timeout_s   one that takes so long, is given up and counts as one that may be sent again
    """

    def __init__(self, url: str, *, stalled_s: float = 15.0, timeout_s: float = 120.0) -> None:
        self.url = url.rstrip("/")
        try:
            self._store: Any = from_url(
                self.url,
                client_options={
                    "allow_http": True,  # an endpoint of the own network
                    "timeout": timedelta(seconds=timeout_s),
                    "read_timeout": timedelta(seconds=stalled_s),
                    "connect_timeout": timedelta(seconds=5),
                },
                retry_config={"max_retries": 0},  # range_requests.py sends again, and counts
            )
        except (BaseError, ValueError) as error:
            raise OSError(f"{self.url}: {_line(error)}") from None

    async def get(self, key: str, start: int, stop: int) -> Any:
        """Bytes `start` to `stop` of an object, as a buffer.

        Raises FileNotFoundError, PermissionError or OSError for what will not change, TransientError
        for what may.
        """
        refuse_in_fork(self.url)
        try:
            found = await obstore.get_range_async(self._store, key, start=start, end=stop)
        except Exception as error:
            raise explained(f"{self.url}/{key}", error) from None
        if len(found) != stop - start:
            raise OSError(f"{self.url}/{key}: ends at byte {start + len(found)}, wanted {stop}")
        return found

    async def get_whole(self, key: str) -> Any:
        """A whole object. Raises as `get` does."""
        refuse_in_fork(self.url)
        try:
            return await (await obstore.get_async(self._store, key)).bytes_async()
        except Exception as error:
            raise explained(f"{self.url}/{key}", error) from None

    async def size(self, key: str) -> int:
        """Bytes of an object. Raises as `get` does."""
        refuse_in_fork(self.url)
        try:
            return int((await obstore.head_async(self._store, key))["size"])
        except Exception as error:
            raise explained(f"{self.url}/{key}", error) from None


def refuse_in_fork(url: str) -> None:
    """Raises OSError in a process that was forked from one that has used the client: it would hang."""
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid():
        raise OSError(
            f"{url}: cannot be read in a forked process; start workers with 'spawn' or 'forkserver', or "
            "read with threads"
        )


def explained(url: str, error: Exception) -> OSError:
    """An error of the client as one line with the URL; a TransientError where another try may succeed."""
    text = str(error)
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    if isinstance(error, FileNotFoundError):
        status = 404
    elif isinstance(error, PermissionDeniedError):
        status = 403
    elif isinstance(error, UnauthenticatedError):
        status = 401
    elif not isinstance(error, BaseError):
        return OSError(f"{url}: {_line(error)}")
    code = _CODE.search(text)
    answer = f"{status} {code[1]}" if code else str(status)
    if "169.254.169.254" in text:
        return PermissionError(
            f"{url}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a machine "
            "that has a role"
        )
    if status >= 500 or status in _AGAIN:
        return TransientError(f"{url}: the store answers {answer}")
    if status == 0:
        reason = next((reason for reason in _REASONS if reason in text), "connection lost")
        return TransientError(f"{url}: no answer ({reason})")
    if code and code[1] == "NoSuchBucket":
        return OSError(f"{url}: no such bucket ({answer})")
    kind = {404: FileNotFoundError, 403: PermissionError, 401: PermissionError}.get(status, OSError)
    return kind(f"{url}: {_HINTS.get(status, 'the store refuses')} ({answer})")


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

"""Runs a computation over foreign data in a child process that has no environment and bounds for all it does."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson

from fairlead.tools.base import MAX_RESULT_BYTES, ToolContext, ToolFailed, ToolUnavailable

_MAX_ANSWER: Final = 2 * MAX_RESULT_BYTES
_MAX_STDERR: Final = 4096


class Children:
    """Starts the child processes of tools, no more than *limit* at a time, and half of them for one namespace."""

    def __init__(self, *, limit: int = 4) -> None:
        self._places = asyncio.Semaphore(limit)
        self._share = max(limit // 2, 1)
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By namespace; those that are in use."""

    async def run(self, module: str, payload: dict[str, Any], context: ToolContext) -> Any:
        """Return what *module* of `fairlead.tools.children` answers to *payload*; it is killed when the time is over.

        Raises:
            ToolFailed: it said why it cannot, or broke a limit.
            ToolUnavailable: there was no place for it, or it broke.
        """
        share = self._shares.setdefault(context.namespace, asyncio.Semaphore(self._share))
        has_place = False
        try:
            async with asyncio.timeout(context.timeout_seconds), share, self._places:
                has_place = True
                return await self._run(module, {**payload, "cpuSeconds": int(context.timeout_seconds) + 1})
        except TimeoutError:
            if not has_place:
                raise ToolUnavailable(
                    f"other computations took all places for {context.timeout_seconds:g} s", reason="ToolTimeout"
                ) from None
            raise ToolFailed(
                f"not finished within {context.timeout_seconds:g} s: ask for less", reason="ToolTimeout"
            ) from None

    async def _run(self, module: str, payload: dict[str, Any]) -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-B", "-m", f"fairlead.tools.children.{module}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={}, cwd="/",
        )  # fmt: skip
        try:
            answer, complaint, _ = await asyncio.gather(
                _read(process.stdout, _MAX_ANSWER), _read(process.stderr, _MAX_STDERR), _feed(process, payload)
            )
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _result(code, answer, complaint)


async def _feed(process: asyncio.subprocess.Process, payload: dict[str, Any]) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(orjson.dumps(payload))
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # it ended before it had read everything; its exit says why
    finally:
        process.stdin.close()


async def _read(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """Read to the end; what is over *limit* is thrown away, so that the child is not held up."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(65536)):
        kept += chunk[: limit + 1 - len(kept)]
    return bytes(kept)


def _result(code: int, answer: bytes, complaint: bytes) -> Any:
    if len(answer) > _MAX_ANSWER:
        raise ToolFailed("the result is too large: ask for less", reason="TooLarge")
    if code < 0:
        raise ToolFailed(
            f"the computation was ended by signal {-code}: it used too much memory or time; ask for less",
            reason="LimitExceeded",
        )
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError:
        text = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["no answer"]
        raise ToolUnavailable(f"the computation broke (exit {code}): {text[0][:500]}") from None
    if "error" in parsed:
        raise ToolFailed(parsed["error"]["message"], reason=parsed["error"]["reason"])
    return parsed["result"]

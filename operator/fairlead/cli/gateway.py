"""What the gateway has for people: that of this machine, one that is named, or a cluster's through a port-forward."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import orjson

from fairlead.cli.exits import NotFound
from fairlead.cli.printing import for_screen
from fairlead.cli.session import Session, find_kubeconfig
from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import FairleadError, Refused, Unavailable
from fairlead.kube import Ref
from fairlead.localcluster.supervisor.home import Home

SERVICE: Final = "fairlead-gateway"
_SERVICE_PORT: Final = 8443
_SERVICE_HOST: Final = f"{SERVICE}.{names.SYSTEM_NAMESPACE}.svc"
_READER_ACCOUNT: Final = "fairlead-operator"
_FORWARD_ROLE: Final = "fairlead-port-forward"
_FORWARDED: Final = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")
_FORWARD_SECONDS: Final = 15
_OK_LIMIT: Final = 400
_PAUSE: Final = 0.5
_PATIENCE: Final = 60.0
"""Seconds that a gateway may be away before following a log is given up."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway answers. *host* is the name in its certificate, where that is not the URL's."""

    url: str
    ca: str
    """What signed its certificate; empty: one of the system's authorities."""
    host: str = ""
    public: bool = False
    """Whether something with a public certificate may be in front of it: then *ca* is only one of those to trust."""


class GatewayReader:
    """The API for people: what runs did and do, and the approvals that they wait for."""

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, host: str) -> None:
        self._client = client
        self._clock = clock
        self._extensions = {"sni_hostname": host} if host else {}

    async def run(self, namespace: str, run: str, *, outputs: bool = True) -> dict[str, Any]:
        """Return a run's record with its nodes; *outputs*: with what they put out."""
        return await self._get(_path(namespace, run), {} if outputs else {"outputs": "false"})

    async def find(self, namespace: str, run: str, *, outputs: bool = True) -> dict[str, Any] | None:
        """Return a run's record, or None: the operator has not accepted it yet, or there is none."""
        try:
            return await self.run(namespace, run, outputs=outputs)
        except NotFound:
            return None

    async def approvals(self, namespace: str, run: str = "") -> list[dict[str, Any]]:
        """Return what waits for a decision in a namespace (empty: in all), or all that a run asked."""
        if run:
            path = _path(namespace, run, "approvals")
        else:
            path = f"/v1/namespaces/{quote(namespace)}/approvals" if namespace else "/v1/approvals"
        return list((await self._get(path))["items"])

    async def decide(self, namespace: str, run: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
        """Decide an approval of a run; return it as it is then.

        Raises:
            Refused: somebody decided otherwise before, or the person may not.
        """
        request = self._client.build_request(
            "POST", _path(namespace, run, "approvals"), json=dict(verdict), extensions=self._extensions
        )
        return await self._answer(request)

    async def output(self, namespace: str, run: str) -> dict[str, Any]:
        """Return how a run ended and what it put out."""
        return await self._get(_path(namespace, run, "output"))

    async def trace(self, namespace: str, run: str) -> list[dict[str, Any]]:
        """Return a run's spans."""
        return list((await self._get(_path(namespace, run, "trace")))["items"])

    async def runs(self, namespace: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the latest runs of a namespace, those whose objects are gone among them."""
        path = f"/v1/namespaces/{quote(namespace)}/runs"
        return list((await self._get(path, {"limit": str(limit)}))["items"])

    async def costs(self, *, by: str, namespace: str, workflow: str, since: str) -> dict[str, Any]:
        """Return what calls of models cost, summed by *by*."""
        query = {"by": by, "namespace": namespace, "workflow": workflow, "since": since}
        return await self._get("/v1/costs", {key: value for key, value in query.items() if value})

    async def run_costs(self, namespace: str, run: str) -> dict[str, Any]:
        """Return what the nodes of a run cost."""
        return await self._get(_path(namespace, run, "costs"))

    async def profile(self, namespace: str, run: str) -> dict[str, Any]:
        """Return where a run's time went."""
        return await self._get(_path(namespace, run, "profile"))

    async def workflow_profile(self, namespace: str, workflow: str, *, since: str = "") -> dict[str, Any]:
        """Return where the time of a workflow's latest runs went."""
        path = f"/v1/namespaces/{quote(namespace)}/workflows/{quote(workflow)}/profile"
        return await self._get(path, {"since": since} if since else None)

    async def agent(self, namespace: str, agent: str) -> dict[str, Any]:
        """Return an Agent's pool: what waits, and its registered pods with what they work on."""
        return await self._get(f"/v1/namespaces/{quote(namespace)}/agents/{quote(agent)}")

    async def pod(self, namespace: str, pod: str) -> dict[str, Any] | None:
        """Return a registered pod with what it works on, or None."""
        try:
            return await self._get(f"/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}")
        except NotFound:
            return None

    async def prices(self, namespace: str, models: Sequence[str]) -> dict[str, Any]:
        """Return what the price list says of LiteLLM models."""
        return await self._get(f"/v1/namespaces/{quote(namespace)}/prices", {"model": list(models)})

    async def sandbox(self, namespace: str) -> dict[str, Any]:
        """Return what programs run in."""
        return await self._get(f"/v1/namespaces/{quote(namespace)}/sandbox")

    async def logs(self, namespace: str, run: str, *, follow: bool) -> AsyncIterator[dict[str, Any]]:
        """Yield a run's log lines; *follow*: until the run has ended, also past a gateway that is started again."""
        path, after = _path(namespace, run, "logs"), 0
        while page := (await self._get(path, {"after": str(after)}))["items"]:
            for line in page:
                yield line
            after = page[-1]["id"]
        patience = self._clock.monotonic() + _PATIENCE
        while follow:
            try:
                async for line in self._stream(path, after):
                    after, patience = line["id"], self._clock.monotonic() + _PATIENCE
                    yield line
            except Unavailable:
                if self._clock.monotonic() >= patience:
                    raise
                await self._clock.sleep(_PAUSE)
            else:
                return

    async def _stream(self, path: str, after: int) -> AsyncIterator[dict[str, Any]]:
        timeout = httpx.Timeout(10, read=None)
        query = {"follow": "true", "after": str(after)}
        try:
            async with self._client.stream(
                "GET", path, params=query, timeout=timeout, extensions=self._extensions
            ) as answer:
                if answer.status_code >= _OK_LIMIT:
                    await answer.aread()
                    raise to_error(answer)
                async for line in answer.aiter_lines():
                    yield for_screen(orjson.loads(line))
        except httpx.HTTPError as error:
            raise Unavailable(f"the gateway stopped answering: {_words(error)}") from error

    async def _get(self, path: str, query: Mapping[str, str | list[str]] | None = None) -> dict[str, Any]:
        return await self._answer(self._client.build_request("GET", path, params=query, extensions=self._extensions))

    async def _answer(self, request: httpx.Request) -> dict[str, Any]:
        try:
            answer = await self._client.send(request)
        except httpx.HTTPError as error:
            raise Unavailable(f"the gateway at {self._client.base_url} does not answer: {_words(error)}") from error
        if answer.status_code >= _OK_LIMIT:
            raise to_error(answer)
        parsed: dict[str, Any] = for_screen(orjson.loads(answer.content))
        return parsed


def _words(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _path(namespace: str, run: str, part: str = "") -> str:
    return f"/v1/namespaces/{quote(namespace)}/runs/{quote(run)}" + (f"/{part}" if part else "")


def to_error(answer: httpx.Response) -> FairleadError:
    """Return the error that a refusal means."""
    try:
        problem = orjson.loads(answer.content)
        reason, message = str(problem["reason"]), str(problem["message"])
    except (ValueError, KeyError, TypeError):
        reason, message = "", f"HTTP {answer.status_code}"
    match answer.status_code:
        case 404:
            return NotFound(message)
        case 401:
            return Refused(message, reason="Unauthorized")
        case 403:
            return Refused(message, reason="Forbidden")
        case status if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Unavailable(f"the gateway: {message}")
        case _:
            return Refused(message, reason=reason or None)


@contextlib.asynccontextmanager
async def open_gateway(session: Session) -> AsyncIterator[GatewayReader]:
    """Connect to the gateway of the session's cluster."""
    authorization = await _authorization(session)
    async with _place(session) as place:
        headers = {"Authorization": authorization, "User-Agent": "fairlead-cli"}
        async with httpx.AsyncClient(
            base_url=place.url, verify=_trust(place), headers=headers, trust_env=False, timeout=30
        ) as client:
            yield GatewayReader(client, session.clock, host=place.host)


def _trust(place: Place) -> ssl.SSLContext:
    if not place.public:  # to load the system's authorities takes a tenth of a second
        return ssl.create_default_context(cadata=place.ca or None)
    context = ssl.create_default_context()
    if place.ca:
        context.load_verify_locations(cadata=place.ca)
    return context


@contextlib.asynccontextmanager
async def _place(session: Session) -> AsyncIterator[Place]:
    if session.target.gateway:
        url = session.target.gateway
        host = "" if urlsplit(url).hostname not in ("127.0.0.1", "localhost") else _SERVICE_HOST
        yield Place(url, await _published_ca(session), "" if session.local else host, public=True)
    elif session.local is not None:
        yield _local_place(session.local)
    else:
        async with _forward(session) as port:
            yield Place(f"https://127.0.0.1:{port}", await _published_ca(session), _SERVICE_HOST)


def _local_place(home: Home) -> Place:
    try:
        document = orjson.loads(home.gateway_file.read_bytes())
        return Place(document["url"], Path(document["ca"]).read_text())
    except OSError as error:
        raise Unavailable(
            f"the gateway has never been ready in {home.root}; see {home.logs / 'gateway.log'}"
        ) from error


async def _published_ca(session: Session) -> str:
    """Return the certificate that the gateway publishes; nothing where there is none, or not for this person."""
    try:
        published = await session.kube.get(Ref("v1", "ConfigMap", names.GATEWAY_CA_CONFIGMAP, names.SYSTEM_NAMESPACE))
    except Refused as error:
        if error.reason != "Forbidden":
            raise
        published = None
    return str(((published or {}).get("data") or {}).get(names.CA_KEY, ""))


async def own_token(session: Session) -> str:
    """Return the user's own bearer token as a header; empty for who has a certificate instead."""
    own = (await session.kube.credentials()).authorization
    return own if own.lower().startswith("bearer ") else ""


async def _authorization(session: Session) -> str:
    """Return the user's own bearer token; who has a certificate instead gets a token that only the gateway takes."""
    if own := await own_token(session):
        return own
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"namespace": names.SYSTEM_NAMESPACE},
        "spec": {"audiences": [names.AUDIENCE], "expirationSeconds": 3600},
    }
    answer = await session.kube.create(request, subresource="token", name=_READER_ACCOUNT)
    return f"Bearer {answer['status']['token']}"


@contextlib.asynccontextmanager
async def _forward(session: Session) -> AsyncIterator[int]:
    """Forward a free local port to the gateway's Service, as long as it is used."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise Refused(
            "reading runs of a cluster needs kubectl for a port-forward; or give the gateway with --gateway URL"
        )
    target = session.target
    command = [kubectl, "--kubeconfig", str(find_kubeconfig(target, Home(target.home)))]
    command += ["--context", target.context] if target.context else []
    command += ["-n", names.SYSTEM_NAMESPACE, "port-forward", f"service/{SERVICE}", f":{_SERVICE_PORT}"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield await _forwarded_port(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def _forwarded_port(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None  # noqa: S101 - asked for
    assert process.stderr is not None  # noqa: S101
    with contextlib.suppress(TimeoutError):
        line = await asyncio.wait_for(process.stdout.readline(), _FORWARD_SECONDS)
        if found := _FORWARDED.search(line):
            return int(found.group(1))
        said = (await asyncio.wait_for(process.stderr.read(), _FORWARD_SECONDS)).decode(errors="replace").strip()
        if "forbidden" in said.lower():
            text = (
                f"somebody has to bind the Role {_FORWARD_ROLE} of {names.SYSTEM_NAMESPACE} to you or a group of yours"
            )
            raise Refused(f"no port-forward to the gateway: {said}; {text}, or give --gateway URL", reason="Forbidden")
        raise Unavailable(f"no port-forward to the gateway: {said}")
    raise Unavailable(f"no port-forward to the gateway within {_FORWARD_SECONDS} s")

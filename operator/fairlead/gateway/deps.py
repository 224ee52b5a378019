"""What routes ask for: the services, whoever asks, the parsed body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from fairlead.errors import InvalidObject
from fairlead.kube import TokenIdentity
from fairlead.services.sessions import Unauthenticated
from fairlead.wiring import Gateway

_Model = TypeVar("_Model", bound=BaseModel)
_MAX_VALUES: Final = 2_000_000
_BEFORE_A_VALUE: Final = (b",", b"[", b"{")
"""Each value of JSON has one of these before it. Those in texts count, too."""


async def services(request: Request) -> Gateway:
    """Return the services of this process."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def bearer(request: Request) -> str:
    """Return the bearer token, or nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


Services = Annotated[Gateway, Depends(services)]
Bearer = Annotated[str, Depends(bearer)]


async def reader(request: Request, gateway: Services, token: Bearer) -> None:
    """Let only those pass who may read runs of the namespace in the path, or of the one asked for."""
    namespace = request.path_params.get("namespace") or request.query_params.get("namespace") or ""
    if not token:
        raise Unauthenticated("send a Kubernetes token as Authorization: Bearer")
    await gateway.readers.check(token, namespace)


async def person(request: Request, gateway: Services, token: Bearer) -> TokenIdentity:
    """Return who asks, if they may change runs of the namespace in the path."""
    return await gateway.readers.identify(token, request.path_params["namespace"], verb="update")


Person = Annotated[TokenIdentity, Depends(person)]


async def parse(request: Request, model: type[_Model]) -> _Model:
    """Return the body as *model*, by pydantic's own JSON parser.

    Raises:
        InvalidObject: it is none, or has more values than can be read without holding up everybody else.
    """
    given = await request.body()
    if len(given) > _MAX_VALUES and sum(map(given.count, _BEFORE_A_VALUE)) > _MAX_VALUES:
        raise InvalidObject(f"the body has over {_MAX_VALUES} values: send less at once", reason="TooLarge")
    try:
        return model.model_validate_json(given)
    except ValidationError as error:
        first: Any = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidObject(f"{place}: {first['msg']}", field=place, reason="InvalidRequest") from None


def body(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """Return a dependency that reads the body as *model*."""

    async def read(request: Request) -> _Model:
        return await parse(request, model)

    return read

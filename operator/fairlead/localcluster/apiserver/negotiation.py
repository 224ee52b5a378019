"""Which form of an answer a client wants."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.localcluster.apiserver.errors import not_acceptable

JSON = "application/json"
_OFFERED = (JSON,)
_CONVERSIONS = frozenset(
    {
        ("Table", "meta.k8s.io", "v1"),
        ("PartialObjectMetadata", "meta.k8s.io", "v1"),
        ("PartialObjectMetadataList", "meta.k8s.io", "v1"),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"),
    }
)


@dataclass(frozen=True, slots=True)
class Form:
    """The wanted form; `kind` is empty for the object as it is."""

    kind: str = ""

    @property
    def content_type(self) -> str:
        """Media type of the answer."""
        if self.kind == "APIGroupDiscoveryList":
            return f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        return JSON


def media_type(header: str) -> str:
    """Return the media type without its parameters."""
    return header.partition(";")[0].strip().lower()


def negotiate(accept: str, *, kinds: frozenset[str]) -> Form:
    """Return the first form of *accept* that we can give; *kinds* are the conversions possible here.

    Raises:
        ApiError: 406.
    """
    for clause in accept.split(",") if accept.strip() else ["*/*"]:
        name, _, rest = clause.partition(";")
        parameters = dict(part.strip().split("=", 1) for part in rest.split(";") if "=" in part)
        if name.strip().lower() not in {JSON, "*/*", "application/*"}:
            continue
        wanted = parameters.get("as", "")
        if not wanted:
            return Form()
        conversion = (wanted, parameters.get("g", ""), parameters.get("v", ""))
        if wanted in kinds and conversion in _CONVERSIONS:
            return Form(wanted)
    raise not_acceptable(_OFFERED)

from __future__ import annotations

from typing import Any

import pytest

from fairlead.localcluster.schema import check_crd
from fairlead.localcluster.schema.filling import copied

TEXT = {"type": "string"}
GOOD: dict[str, Any] = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
                "additionalPrinterColumns": [
                    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'}
                ],
            }
        ],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    crd = copied(GOOD)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    node: Any = crd
    for part in parents:
        node = node[part]
    node[last] = value
    return crd


def found(crd: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error.path, error.message) for error in check_crd(crd)]


def found_in(spec: Any) -> list[tuple[str, str]]:
    root = {"type": "object", "properties": {"spec": spec}}
    prefix = "spec.validation.openAPIV3Schema.properties[spec]"
    return [
        (path.removeprefix(prefix).lstrip("."), message)
        for path, message in found(changed("spec/versions/0/schema/openAPIV3Schema", root))
    ]


def test_check_crd_accepts_a_good_one() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        pytest.param(
            "metadata/name",
            "other",
            ("metadata.name", 'Invalid value: "other": must be spec.names.plural+"."+spec.group'),
            id="name",
        ),
        pytest.param(
            "spec/scope",
            "Odd",
            ("spec.scope", 'Unsupported value: "Odd": supported values: "Cluster", "Namespaced"'),
            id="scope",
        ),
        pytest.param(
            "spec/names/listKind",
            "Thing",
            ("spec.names.listKind", 'Invalid value: "Thing": kind and listKind may not be the same'),
            id="list-kind",
        ),
        pytest.param("spec/names/kind", "", ("spec.names.kind", "Required value"), id="kind"),
        pytest.param(
            "spec/versions/0/storage",
            False,
            ("spec.versions", 'Invalid value: ["v1"]: must have exactly one version marked as storage version'),
            id="storage",
        ),
        pytest.param(
            "spec/versions/0/schema",
            {},
            ("spec.versions[0].schema.openAPIV3Schema", "Required value: schemas are required"),
            id="schema",
        ),
        pytest.param(
            "spec/versions/0/additionalPrinterColumns/0/jsonPath",
            ".status.length()",
            (
                "spec.versions[0].additionalPrinterColumns[0].jsonPath",
                "Invalid value: \".status.length()\": is not a valid json path: unexpected '()'",
            ),
            id="column-path",
        ),
        pytest.param(
            "spec/versions/0/additionalPrinterColumns/0/type",
            "text",
            (
                "spec.versions[0].additionalPrinterColumns[0].type",
                'Invalid value: "text": must be one of integer,number,string,boolean,date',
            ),
            id="column-type",
        ),
        pytest.param(
            "spec/versions/0/subresources",
            {"scale": {"specReplicasPath": ".replicas", "statusReplicasPath": ".status.n"}},
            (
                "spec.versions[0].subresources.scale.specReplicasPath",
                'Invalid value: ".replicas": should be a json path under .spec',
            ),
            id="scale",
        ),
        pytest.param(
            "spec/versions/0/selectableFields",
            [{"jsonPath": ".spec.nope"}],
            (
                "spec.versions[0].selectableFields[0].jsonPath",
                (
                    'Invalid value: ".spec.nope": must point to a field of type string, boolean or integer, '
                    "and the field must be in the schema"
                ),
            ),
            id="selectable",
        ),
    ],
)
def test_check_crd_refuses_a_bad_definition(path: str, value: Any, expected: tuple[str, str]) -> None:
    assert found(changed(path, value)) == [expected]


def test_check_crd_asks_for_approval_in_protected_groups() -> None:
    crd = changed("spec/group", "things.k8s.io")
    crd["metadata"]["name"] = "things.things.k8s.io"
    assert found(crd)[0][0] == "metadata.annotations[api-approved.kubernetes.io]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            {"description": "x"},
            ("type", "Required value: must not be empty for specified object fields"),
            id="no-type",
        ),
        pytest.param(
            {"type": "text"},
            (
                "type",
                (
                    'Unsupported value: "text": supported values: '
                    '"array", "boolean", "integer", "number", "object", "string"'
                ),
            ),
            id="odd-type",
        ),
        pytest.param({"type": "array"}, ("items", "Required value: must be specified"), id="no-items"),
        pytest.param(
            {"type": "array", "items": {"description": "x"}},
            ("items.type", "Required value: must not be empty for specified array items"),
            id="items-type",
        ),
        pytest.param({"type": "object", "$ref": "#/x"}, ("$ref", "Forbidden: $ref is not supported"), id="ref"),
        pytest.param(
            {"type": "object", "properties": {"a": TEXT}, "additionalProperties": TEXT},
            ("additionalProperties", "Forbidden: additionalProperties and properties are mutual exclusive"),
            id="both-kinds-of-properties",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": False},
            ("additionalProperties", "Forbidden: additionalProperties cannot be set to false"),
            id="closed",
        ),
        pytest.param(
            {"type": "array", "uniqueItems": True, "items": TEXT},
            (
                "uniqueItems",
                "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ),
            id="unique",
        ),
        pytest.param(
            {"type": "string", "x-kubernetes-int-or-string": True},
            ("type", 'Invalid value: "string": must be empty if x-kubernetes-int-or-string is true'),
            id="int-or-string",
        ),
        pytest.param(
            {"type": "object", "x-kubernetes-preserve-unknown-fields": False},
            ("x-kubernetes-preserve-unknown-fields", "Invalid value: false: must be true or undefined"),
            id="preserve",
        ),
        pytest.param({"type": "string", "pattern": "["}, ("pattern", None), id="pattern"),
        pytest.param({"type": "string", "pattern": "(?=a)"}, ("pattern", None), id="perl-pattern"),
        pytest.param({"type": "integer", "default": "x"}, ("default", None), id="default-type"),
        pytest.param({"type": "integer", "default": None}, ("default", None), id="default-null"),
        pytest.param(
            {"type": "object", "default": {"b": 1}, "properties": {"a": TEXT}},
            ("default", 'Invalid value: {"b":1}: must not have unknown fields: b'),
            id="default-unknown-field",
        ),
        pytest.param(
            {"type": "object", "anyOf": [{"type": "object"}]},
            ("anyOf[0].type", "Forbidden: must be empty to be structural"),
            id="type-in-junction",
        ),
        pytest.param(
            {"type": "object", "allOf": [{"nullable": True}]},
            ("allOf[0].nullable", "Forbidden: must be false to be structural"),
            id="nullable-in-junction",
        ),
        pytest.param(
            {"type": "object", "oneOf": [{"properties": {"a": {"minLength": 1}}}]},
            ("properties[a]", None),
            id="junction-beyond-the-spine",
        ),
        pytest.param(
            {"type": "array", "items": TEXT, "x-kubernetes-list-type": "bag"},
            ("x-kubernetes-list-type", 'Unsupported value: "bag": supported values: "atomic", "map", "set"'),
            id="list-type",
        ),
        pytest.param(
            {"type": "object", "x-kubernetes-list-type": "set"},
            ("type", 'Invalid value: "object": must be array if x-kubernetes-list-type is specified'),
            id="list-type-of-object",
        ),
        pytest.param(
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": TEXT}},
            },
            (
                "items.properties[n].default",
                (
                    "Required value: this property is in x-kubernetes-list-map-keys, "
                    "so it must have a default or be a required property"
                ),
            ),
            id="list-map-key-optional",
        ),
        pytest.param(
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object"},
            },
            ("x-kubernetes-list-map-keys[0]", 'Invalid value: "n": entries must all be names of item properties'),
            id="list-map-key-unknown",
        ),
        pytest.param(
            {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}},
            ("x-kubernetes-list-map-keys", "Required value: must not be empty if x-kubernetes-list-type is map"),
            id="list-map-without-keys",
        ),
        pytest.param(
            {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}},
            ("items.x-kubernetes-map-type", None),
            id="set-of-granular-maps",
        ),
        pytest.param({"type": "object", "x-kubernetes-embedded-resource": True}, ("properties", None), id="embedded"),
    ],
)
def test_check_crd_refuses_what_is_not_structural(spec: dict[str, Any], expected: tuple[str, str | None]) -> None:
    path, message = expected
    said = found_in(spec)
    assert [place for place, _ in said] == [path]
    assert message is None or said[0][1] == message


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(
            {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, id="int-or-string"
        ),
        pytest.param({"x-kubernetes-preserve-unknown-fields": True}, id="anything"),
        pytest.param({"type": "object", "additionalProperties": True}, id="open-map"),
        pytest.param({"type": "string", "nullable": True, "default": None}, id="nullable-default"),
        pytest.param(
            {
                "type": "object",
                "properties": {"a": TEXT},
                "oneOf": [{"required": ["a"]}, {"properties": {"a": {"minLength": 1}}}],
            },
            id="junction",
        ),
    ],
)
def test_check_crd_accepts_what_is_structural(spec: dict[str, Any]) -> None:
    assert found_in(spec) == []


def test_check_crd_restricts_metadata_to_the_name() -> None:
    meta = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}
    root: dict[str, Any] = {"type": "object", "properties": {"metadata": meta}}
    assert found(changed("spec/versions/0/schema/openAPIV3Schema", root)) == []
    meta["properties"] = {"labels": {"type": "object"}}
    said = found(changed("spec/versions/0/schema/openAPIV3Schema", root))
    assert said[0][1].startswith("Forbidden: must not specify anything other than name and generateName")


def test_check_crd_names_the_version_when_schemas_differ() -> None:
    crd = copied(GOOD)
    second = copied(crd["spec"]["versions"][0]) | {"name": "v2", "storage": False}
    second["schema"]["openAPIV3Schema"]["properties"]["spec"] = {"type": "array"}
    crd["spec"]["versions"].append(second)
    assert found(crd)[0][0] == "spec.versions[1].schema.openAPIV3Schema.properties[spec].items"

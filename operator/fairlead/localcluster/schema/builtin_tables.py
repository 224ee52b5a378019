"""What Kubernetes' published types say of lists, maps and defaults that the Python client's models leave out.

Keys are the client's model and the wire name of the field. Lists that are not here are atomic and replaced by
strategic merge patches, as in Kubernetes.
"""

from __future__ import annotations

from typing import Any, Final

LIST_MAPS: Final[dict[str, dict[str, str]]] = {
    "V1ObjectMeta": {"ownerReferences": "uid"},
    "V1PodSpec": {
        "containers": "name",
        "initContainers": "name",
        "ephemeralContainers": "name",
        "volumes": "name",
        "imagePullSecrets": "name",
        "hostAliases": "ip",
        "topologySpreadConstraints": "topologyKey whenUnsatisfiable",
        "schedulingGates": "name",
        "resourceClaims": "name",
    },
    "V1Container": {
        "env": "name",
        "ports": "containerPort protocol",
        "volumeMounts": "mountPath",
        "volumeDevices": "devicePath",
    },
    "V1EphemeralContainer": {
        "env": "name",
        "ports": "containerPort protocol",
        "volumeMounts": "mountPath",
        "volumeDevices": "devicePath",
    },
    "V1ResourceRequirements": {"claims": "name"},
    "V1PodStatus": {"conditions": "type", "podIPs": "ip", "resourceClaimStatuses": "name"},
    "V1NodeStatus": {"conditions": "type", "addresses": "type"},
    "V1ServiceSpec": {"ports": "port protocol"},
    "V1ServiceAccount": {"secrets": "name"},
    "V1ValidatingWebhookConfiguration": {"webhooks": "name"},
    "V1MutatingWebhookConfiguration": {"webhooks": "name"},
    "V1ValidatingWebhook": {"matchConditions": "name"},
    "V1MutatingWebhook": {"matchConditions": "name"},
} | {
    name: {"conditions": "type"}
    for name in (
        "V1APIServiceStatus",
        "V1CertificateSigningRequestStatus",
        "V1CustomResourceDefinitionStatus",
        "V1DaemonSetStatus",
        "V1DeploymentStatus",
        "V1NamespaceStatus",
        "V1PersistentVolumeClaimStatus",
        "V1PodDisruptionBudgetStatus",
        "V1ReplicaSetStatus",
        "V1ReplicationControllerStatus",
        "V1ServiceStatus",
        "V1StatefulSetStatus",
        "V2HorizontalPodAutoscalerStatus",
    )
}
"""Lists of ``x-kubernetes-list-type: map``; several keys are separated by spaces, the first is the patch merge key."""

LIST_SETS: Final[dict[str, frozenset[str]]] = {
    "V1ObjectMeta": frozenset({"finalizers"}),
    "V1NodeSpec": frozenset({"podCIDRs"}),
    "V1PersistentVolumeClaimSpec": frozenset(),
}

MERGE_ONLY: Final[dict[str, dict[str, str]]] = {
    "V1JobStatus": {"conditions": "type"},
    "V1PodStatus": {"hostIPs": "ip"},
    "V1JSONSchemaProps": {"x-kubernetes-validations": "rule"},
}
"""Atomic for server-side apply, merged by this key in strategic merge patches."""

RETAIN_KEYS: Final[dict[str, frozenset[str]]] = {
    "V1PodSpec": frozenset({"volumes", "resourceClaims"}),
    "V1DeploymentSpec": frozenset({"strategy"}),
}

ATOMIC_MAPS: Final = frozenset(
    {
        "V1ConfigMapKeySelector",
        "V1CrossVersionObjectReference",
        "V1FieldsV1",
        "V1LabelSelector",
        "V1LocalObjectReference",
        "V1NodeSelector",
        "V1NodeSelectorTerm",
        "V1ObjectFieldSelector",
        "V1ObjectReference",
        "V1OwnerReference",
        "V1ResourceFieldSelector",
        "V1RoleRef",
        "V1ScopeSelector",
        "V1SecretKeySelector",
        "V1SecretReference",
        "V1TypedLocalObjectReference",
        "RbacV1Subject",
    }
)
"""Models that are ``x-kubernetes-map-type: atomic``."""

ATOMIC_MAP_FIELDS: Final = frozenset({("V1PodSpec", "nodeSelector"), ("V1ServiceSpec", "selector")})

OPAQUE: Final = frozenset({"V1FieldsV1"})

IGNORED_REQUIRED: Final = frozenset({("V1TokenRequestSpec", "audiences")})
"""Fields that the published types call required and the server fills in."""

ANY_KEYS: Final = frozenset({"limits", "requests", "capacity", "allocatable", "hard", "used", "overhead", "sizeLimit"})

_CONTAINER: dict[str, Any] = {
    "imagePullPolicy": "IfNotPresent",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}

_PROBE: dict[str, Any] = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "V1PodSpec": {
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    },
    "V1Container": _CONTAINER,
    "V1EphemeralContainer": _CONTAINER,
    "V1ContainerPort": {"protocol": "TCP"},
    "V1Probe": _PROBE,
    "V1HTTPGetAction": {"path": "/", "scheme": "HTTP"},
    "V1ObjectFieldSelector": {"apiVersion": "v1"},
    "V1ConfigMapVolumeSource": {"defaultMode": 420},
    "V1SecretVolumeSource": {"defaultMode": 420},
    "V1DownwardAPIVolumeSource": {"defaultMode": 420},
    "V1ProjectedVolumeSource": {"defaultMode": 420},
    "V1ServiceAccountTokenProjection": {"expirationSeconds": 3600},
    "V1HostPathVolumeSource": {"type": ""},
    "V1Secret": {"type": "Opaque"},
    "V1ServiceSpec": {"sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"},
    "V1ServicePort": {"protocol": "TCP"},
    "V1DeploymentSpec": {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    },
    "V1ReplicaSetSpec": {"replicas": 1},
    "V1StatefulSetSpec": {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    },
    "V1DaemonSetSpec": {
        "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    },
    "V1JobSpec": {
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "completions": 1,
        "manualSelector": False,
        "parallelism": 1,
        "podReplacementPolicy": "TerminatingOrFailed",
        "suspend": False,
    },
    "V1CronJobSpec": {
        "concurrencyPolicy": "Allow",
        "failedJobsHistoryLimit": 1,
        "successfulJobsHistoryLimit": 3,
        "suspend": False,
    },
    "V1PersistentVolumeClaimSpec": {"volumeMode": "Filesystem"},
    "V1RoleRef": {"apiGroup": "rbac.authorization.k8s.io"},
    "V1CustomResourceDefinitionSpec": {"conversion": {"strategy": "None"}},
    "V1PriorityClass": {"preemptionPolicy": "PreemptLowerPriority"},
}
"""What the API server fills in, by model."""

ENUMS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("V1PodSpec", "restartPolicy"): ("Always", "OnFailure", "Never"),
    ("V1PodSpec", "dnsPolicy"): ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    ("V1Container", "imagePullPolicy"): ("Always", "IfNotPresent", "Never"),
    ("V1Container", "terminationMessagePolicy"): ("File", "FallbackToLogsOnError"),
    ("V1ContainerPort", "protocol"): ("SCTP", "TCP", "UDP"),
    ("V1ServicePort", "protocol"): ("SCTP", "TCP", "UDP"),
    ("V1ServiceSpec", "type"): ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    ("V1CronJobSpec", "concurrencyPolicy"): ("Allow", "Forbid", "Replace"),
    ("V1CustomResourceDefinitionSpec", "scope"): ("Cluster", "Namespaced"),
    ("V1RoleRef", "apiGroup"): ("rbac.authorization.k8s.io",),
}

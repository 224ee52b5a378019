"""Field numbers of the messages that `protobuf` reads.

``[X]`` is repeated, ``{X}`` a map from strings to X, ``?`` keeps zero values; no type means string;
what is Ignored is the server's to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_META = "1 metadata ObjectMeta"

MESSAGES: Final[Mapping[str, str]] = {
    "Unknown": "1 typeMeta TypeMeta, 2 raw bytes, 3 contentEncoding, 4 contentType",
    "TypeMeta": "1 apiVersion, 2 kind",
    "Timestamp": "1 seconds int, 2 nanos int",
    "Quantity": "1 string",
    "IntOrString": "1 type int, 2 intVal int, 3 strVal",
    "ExtraValue": "1 items [string]",
    "ObjectMeta": (
        "1 name, 2 generateName, 3 namespace, 4 selfLink, 5 uid, 6 resourceVersion, 7 generation int, "
        "8 creationTimestamp Time, 9 deletionTimestamp Time, 10 deletionGracePeriodSeconds int?, 11 labels {string}, "
        "12 annotations {string}, 13 ownerReferences [OwnerReference], 14 finalizers [string], "
        "17 managedFields [ManagedFieldsEntry]"
    ),
    "OwnerReference": "1 kind, 3 name, 4 uid, 5 apiVersion, 6 controller bool?, 7 blockOwnerDeletion bool?",
    "ManagedFieldsEntry": (
        "1 manager, 2 operation, 3 apiVersion, 4 time Time, 6 fieldsType, 7 fieldsV1 Ignored, 8 subresource"
    ),
    "LabelSelector": "1 matchLabels {string}, 2 matchExpressions [LabelSelectorRequirement]",
    "LabelSelectorRequirement": "1 key, 2 operator, 3 values [string]",
    "ObjectReference": "1 kind, 2 namespace, 3 name, 4 uid, 5 apiVersion, 6 resourceVersion, 7 fieldPath",
    "LocalObjectReference": "1 name",
    "DeleteOptions": (
        "1 gracePeriodSeconds int?, 2 preconditions Preconditions, 3 orphanDependents bool?, 4 propagationPolicy, "
        "5 dryRun [string]"
    ),
    "Preconditions": "1 uid, 2 resourceVersion",
    "ConfigMap": f"{_META}, 2 data {{string}}, 3 binaryData {{bytes}}, 4 immutable bool?",
    "Secret": f"{_META}, 2 data {{bytes}}, 3 type, 4 stringData {{string}}, 5 immutable bool?",
    "Namespace": f"{_META}, 2 spec NamespaceSpec, 3 status NamespaceStatus",
    "NamespaceSpec": "1 finalizers [string]",
    "NamespaceStatus": "1 phase",
    "ServiceAccount": (
        f"{_META}, 2 secrets [ObjectReference], 3 imagePullSecrets [LocalObjectReference], "
        "4 automountServiceAccountToken bool?"
    ),
    "Service": f"{_META}, 2 spec ServiceSpec, 3 status ServiceStatus",
    "ServiceSpec": (
        "1 ports [ServicePort], 2 selector {string}, 3 clusterIP, 4 type, 5 externalIPs [string], 7 sessionAffinity, "
        "8 loadBalancerIP, 9 loadBalancerSourceRanges [string], 10 externalName, 11 externalTrafficPolicy, "
        "12 healthCheckNodePort int, 13 publishNotReadyAddresses bool, 17 ipFamilyPolicy, 18 clusterIPs [string], "
        "19 ipFamilies [string], 20 allocateLoadBalancerNodePorts bool?, 21 loadBalancerClass, 22 internalTrafficPolicy"
    ),
    "ServicePort": "1 name, 2 protocol, 3 port int, 4 targetPort IntOrString, 5 nodePort int, 6 appProtocol",
    "ServiceStatus": "1 loadBalancer LoadBalancerStatus",
    "LoadBalancerStatus": "1 ingress [LoadBalancerIngress]",
    "LoadBalancerIngress": "1 ip, 2 hostname",
    "Role": f"{_META}, 2 rules [PolicyRule]",
    "ClusterRole": f"{_META}, 2 rules [PolicyRule], 3 aggregationRule AggregationRule",
    "AggregationRule": "1 clusterRoleSelectors [LabelSelector]",
    "PolicyRule": (
        "1 verbs [string], 2 apiGroups [string], 3 resources [string], 4 resourceNames [string], 5 "
        "nonResourceURLs [string]"
    ),
    "RoleBinding": f"{_META}, 2 subjects [Subject], 3 roleRef RoleRef",
    "ClusterRoleBinding": f"{_META}, 2 subjects [Subject], 3 roleRef RoleRef",
    "Subject": "1 kind, 2 apiGroup, 3 name, 4 namespace",
    "RoleRef": "1 apiGroup, 2 kind, 3 name",
    "Lease": f"{_META}, 2 spec LeaseSpec",
    "LeaseSpec": (
        "1 holderIdentity string?, 2 leaseDurationSeconds int?, 3 acquireTime MicroTime, 4 renewTime MicroTime, "
        "5 leaseTransitions int?, 6 strategy, 7 preferredHolder"
    ),
    "Event": (
        f"{_META}, 2 involvedObject ObjectReference, 3 reason, 4 message, 5 source EventSource, 6 firstTimestamp Time, "
        "7 lastTimestamp Time, 8 count int, 9 type, 10 eventTime MicroTime, 11 series EventSeries, 12 action, "
        "13 related ObjectReference, 14 reportingComponent, 15 reportingInstance"
    ),
    "NewEvent": (
        f"{_META}, 2 eventTime MicroTime, 3 series EventSeries, 4 reportingController, 5 reportingInstance, 6 action, "
        "7 reason, 8 regarding ObjectReference, 9 related ObjectReference, 10 note, 11 type, "
        "12 deprecatedSource EventSource, 13 deprecatedFirstTimestamp Time, 14 deprecatedLastTimestamp Time, "
        "15 deprecatedCount int"
    ),
    "EventSource": "1 component, 2 host",
    "EventSeries": "1 count int, 2 lastObservedTime MicroTime",
    "Binding": f"{_META}, 2 target ObjectReference",
    "Eviction": f"{_META}, 2 deleteOptions DeleteOptions",
    "PriorityClass": f"{_META}, 2 value int, 3 globalDefault bool, 4 description, 5 preemptionPolicy",
    "ResourceQuota": f"{_META}, 2 spec ResourceQuotaSpec, 3 status ResourceQuotaStatus",
    "ResourceQuotaSpec": "1 hard {Quantity}, 2 scopes [string]",
    "ResourceQuotaStatus": "1 hard {Quantity}, 2 used {Quantity}",
    "PodDisruptionBudget": f"{_META}, 2 spec PodDisruptionBudgetSpec, 3 status PodDisruptionBudgetStatus",
    "PodDisruptionBudgetSpec": (
        "1 minAvailable IntOrString?, 2 selector LabelSelector?, 3 maxUnavailable IntOrString?, 4 "
        "unhealthyPodEvictionPolicy"
    ),
    "PodDisruptionBudgetStatus": (
        "1 observedGeneration int, 3 disruptionsAllowed int, 4 currentHealthy int, 5 desiredHealthy int, 6 "
        "expectedPods int"
    ),
    "Scale": f"{_META}, 2 spec ScaleSpec, 3 status ScaleStatus",
    "ScaleSpec": "1 replicas int?",
    "ScaleStatus": "1 replicas int, 2 selector",
    "TokenRequest": f"{_META}, 2 spec TokenRequestSpec, 3 status TokenRequestStatus",
    "TokenRequestSpec": "1 audiences [string], 3 boundObjectRef BoundObjectReference, 4 expirationSeconds int?",
    "BoundObjectReference": "1 kind, 2 apiVersion, 3 name, 4 uid",
    "TokenRequestStatus": "1 token, 2 expirationTimestamp Time",
    "TokenReview": f"{_META}, 2 spec TokenReviewSpec, 3 status Ignored",
    "TokenReviewSpec": "1 token, 2 audiences [string]",
    "SelfSubjectReview": f"{_META}, 2 status Ignored",
    "SelfSubjectAccessReview": f"{_META}, 2 spec AccessSpec, 3 status Ignored",
    "SubjectAccessReview": f"{_META}, 2 spec AccessSpec, 3 status Ignored",
    "LocalSubjectAccessReview": f"{_META}, 2 spec AccessSpec, 3 status Ignored",
    "AccessSpec": (
        "1 resourceAttributes ResourceAttributes?, 2 nonResourceAttributes NonResourceAttributes?, 3 user, "
        "4 groups [string], 5 extra {ExtraValue}, 6 uid"
    ),
    "ResourceAttributes": "1 namespace, 2 verb, 3 group, 4 version, 5 resource, 6 subresource, 7 name",
    "NonResourceAttributes": "1 path, 2 verb",
    "SelfSubjectRulesReview": f"{_META}, 2 spec SelfSubjectRulesReviewSpec, 3 status Ignored",
    "SelfSubjectRulesReviewSpec": "1 namespace",
    "Deployment": f"{_META}, 2 spec DeploymentSpec, 3 status Ignored",
    "DeploymentSpec": (
        "1 replicas int?, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, "
        "5 minReadySeconds int, 6 revisionHistoryLimit int?, 7 paused bool, 9 progressDeadlineSeconds int?"
    ),
    "DeploymentStrategy": "1 type, 2 rollingUpdate RollingUpdate",
    "RollingUpdate": "1 maxUnavailable IntOrString?, 2 maxSurge IntOrString?",
    "Job": f"{_META}, 2 spec JobSpec, 3 status Ignored",
    "JobSpec": (
        "1 parallelism int?, 2 completions int?, 3 activeDeadlineSeconds int?, 4 selector LabelSelector, "
        "5 manualSelector bool?, 6 template PodTemplateSpec, 7 backoffLimit int?, 8 ttlSecondsAfterFinished int?, "
        "9 completionMode, 10 suspend bool?"
    ),
    "CronJob": f"{_META}, 2 spec CronJobSpec, 3 status Ignored",
    "CronJobSpec": (
        "1 schedule, 2 startingDeadlineSeconds int?, 3 concurrencyPolicy, 4 suspend bool?, 5 jobTemplate JobTemplate, "
        "6 successfulJobsHistoryLimit int?, 7 failedJobsHistoryLimit int?, 8 timeZone"
    ),
    "JobTemplate": f"{_META}, 2 spec JobSpec",
    "PodTemplateSpec": f"{_META}, 2 spec PodSpec",
    "PodSpec": (
        "2 containers [Container], 3 restartPolicy, 4 terminationGracePeriodSeconds int?, 5 "
        "activeDeadlineSeconds int?, "
        "6 dnsPolicy, 7 nodeSelector {string}, 8 serviceAccountName, 9 serviceAccount, 10 nodeName, 11 "
        "hostNetwork bool, "
        "12 hostPID bool, 13 hostIPC bool, 15 imagePullSecrets [LocalObjectReference], 16 hostname, 17 subdomain, "
        "19 schedulerName, 20 initContainers [Container], 21 automountServiceAccountToken bool?, 24 priorityClassName"
    ),
    "Container": (
        "1 name, 2 image, 3 command [string], 4 args [string], 5 workingDir, 6 ports [ContainerPort], 7 env [EnvVar], "
        "8 resources ResourceRequirements, 13 terminationMessagePath, 14 imagePullPolicy, 16 stdin bool, "
        "17 stdinOnce bool, 18 tty bool, 20 terminationMessagePolicy"
    ),
    "ContainerPort": "1 name, 2 hostPort int, 3 containerPort int, 4 protocol, 5 hostIP",
    "EnvVar": "1 name, 2 value",
    "ResourceRequirements": "1 limits {Quantity}, 2 requests {Quantity}",
}
"""Kinds that `kubectl create` sends, and what controllers write most; more is added when a client needs it."""

"""The composition root: settings become adapters, adapters become services. Whoever builds, closes.

What a process needs is imported by its own `build_` function, so that each installs only its own libraries.
"""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairlead import __version__
from fairlead.clock import Clock, SystemClock
from fairlead.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from httpx import AsyncClient

    from fairlead.kube import KubeClient
    from fairlead.sandbox.base import Sandbox
    from fairlead.sandbox.choosing import Choice
    from fairlead.services.applying import Applier
    from fairlead.services.approvals import Approvals
    from fairlead.services.asking import Models
    from fairlead.services.calls import Calls
    from fairlead.services.certificates import Certificates
    from fairlead.services.costing import Costing
    from fairlead.services.election import Election
    from fairlead.services.exporting import Exporting
    from fairlead.services.external import ExternalAgents
    from fairlead.services.graphchecks import GraphChecks
    from fairlead.services.handout import Handout
    from fairlead.services.journal import Journal
    from fairlead.services.messages import Messages
    from fairlead.services.objects import Objects
    from fairlead.services.operator import Operator
    from fairlead.services.podsettings import PodDefaults, PodSettingsSource
    from fairlead.services.probing import Probing
    from fairlead.services.profiling import Profiling
    from fairlead.services.programs import Programs
    from fairlead.services.reading import Readers, Reading
    from fairlead.services.results import Results
    from fairlead.services.roster import Roster
    from fairlead.services.runs import Runs
    from fairlead.services.sessions import Sessions
    from fairlead.services.tasks import Tasks
    from fairlead.services.toolbox import Toolbox
    from fairlead.services.turns import Turns
    from fairlead.services.waiting import Waiting
    from fairlead.services.wakeups import Wakeups
    from fairlead.settings import ExportSettings, GatewaySettings, OperatorSettings
    from fairlead.storage.base import Storage
    from fairlead.tools.child import Children
    from fairlead.tools.code import RunProgram
    from fairlead.tools.registry import Registry


@dataclass(frozen=True, slots=True)
class AgentServices:
    """What agent pods use of a gateway."""

    sessions: Sessions
    handout: Handout
    journal: Journal
    calls: Calls
    waiting: Waiting
    turns: Turns
    results: Results


@dataclass(frozen=True, slots=True)
class Abroad:
    """What passes between our agents and those of others (A2A)."""

    agents: ExternalAgents
    probing: Probing
    messages: Messages
    public_url: str
    """Where others reach this gateway; empty: as they do."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The services of a gateway process."""

    id: str
    storage: Storage
    kube: KubeClient
    clock: Clock
    certificates: Certificates
    agents: AgentServices
    approvals: Approvals
    readers: Readers
    reading: Reading
    costing: Costing
    profiling: Profiling
    roster: Roster
    exporting: Exporting
    abroad: Abroad
    sandbox: Choice
    wakeups: Wakeups
    close: Callable[[], Awaitable[None]]

    async def aclose(self) -> None:
        """Close every connection."""
        await self.close()


@dataclass(frozen=True, slots=True)
class _Core:
    """What the gateway's services share."""

    id: str
    storage: Storage
    kube: KubeClient
    clock: Clock
    cluster: str
    tasks: Tasks
    wakeups: Wakeups


async def cluster_id(kube: KubeClient) -> str:
    """Return what tells this cluster from every other: the uid of its namespace ``kube-system``."""
    from fairlead.kube import Ref

    namespace = await kube.get(Ref("v1", "Namespace", "kube-system"))
    if namespace is None:
        raise Unavailable("the cluster has no namespace kube-system yet", retry_after=1)
    return str(namespace["metadata"]["uid"])


async def build_gateway(settings: GatewaySettings, *, clock: Clock | None = None) -> Gateway:
    """Connect to the cluster and to storage, and put the gateway's services together.

    Raises:
        Unavailable: one of them does not answer.
    """
    from contextlib import AsyncExitStack

    from fairlead.kube import KubeClient
    from fairlead.storage import open_storage

    async with AsyncExitStack() as stack:
        kube = await KubeClient.connect(kubeconfig=settings.kubeconfig, user_agent="fairlead-gateway")
        stack.push_async_callback(kube.aclose)
        storage = open_storage(settings.storage_url)
        stack.push_async_callback(storage.aclose)
        await storage.migrate()
        cluster = await cluster_id(kube)
        return _compose_gateway(settings, kube, storage, clock=clock or SystemClock(), cluster=cluster, stack=stack)


def _compose_gateway(
    settings: GatewaySettings, kube: KubeClient, storage: Storage, *, clock: Clock, cluster: str, stack: AsyncExitStack
) -> Gateway:
    from fairlead.services import approvals, certificates, costing, profiling, reading, roster, tasks
    from fairlead.settings import ExportSettings

    known = tasks.Tasks(storage)
    woken = _build_wakeups(storage, clock)
    own_id = f"gateway-{secrets.token_hex(8)}"
    core = _Core(own_id, storage, kube, clock, cluster, known, woken)
    sandbox = build_sandbox(settings, kube)
    abroad = _build_abroad(settings, core, stack)
    agents = _compose_agents(core, *_build_callers(settings, core, sandbox, stack=stack), external=abroad.agents)
    return Gateway(
        id=own_id,
        storage=storage,
        kube=kube,
        clock=clock,
        certificates=certificates.Certificates(kube, clock, namespace=settings.namespace, hosts=settings.hosts),
        agents=agents,
        approvals=approvals.Approvals(storage, clock, known, cluster=cluster),
        readers=reading.Readers(kube, clock),
        reading=reading.Reading(storage, clock, cluster=cluster),
        costing=costing.Costing(storage, cluster=cluster),
        profiling=profiling.Profiling(storage, clock, cluster=cluster),
        roster=roster.Roster(storage, cluster=cluster),
        exporting=build_exporting(ExportSettings(), storage, clock, stack=stack),
        abroad=abroad,
        sandbox=sandbox,
        wakeups=woken,
        close=stack.pop_all().aclose,
    )


def _build_wakeups(storage: Storage, clock: Clock) -> Wakeups:
    """Return what wakes those who wait: for work, signals, budgets, and what becomes of runs."""
    from fairlead.services import calls, messages, sessions, waiting
    from fairlead.services.wakeups import Wakeups

    return Wakeups(storage, clock, sessions.TOPIC, waiting.TOPIC, calls.BUDGET_TOPIC, messages.TOPIC)


def build_sandbox(settings: GatewaySettings, kube: KubeClient | None = None) -> Choice:
    """Return what programs run in; nothing is tried yet. Where *kube* is the own cluster's, they may be pods of it."""
    from fairlead.egress import Policy
    from fairlead.sandbox.choosing import Options
    from fairlead.sandbox.choosing import build_sandbox as choose
    from fairlead.services.sandboxpods import SandboxPods

    options = Options(
        image=settings.sandbox_image,
        runtime_class=settings.sandbox_runtime_class,
        fixed_user=settings.sandbox_fixed_user,
        namespace=settings.sandbox_namespace,
        parallel=settings.sandbox_parallel,
        warm=settings.sandbox_warm,
        policy=Policy(loopback=settings.allow_loopback_tools, private=settings.allow_private_tools),
    )
    in_cluster = settings.kubeconfig is None or settings.sandbox == "pod"
    pods = SandboxPods(kube, settings.sandbox_namespace) if kube is not None and in_cluster else None
    return choose(settings.sandbox, options=options, pods=pods)


def _build_abroad(settings: GatewaySettings, core: _Core, stack: AsyncExitStack) -> Abroad:
    """Return what speaks with agents of others."""
    from fairlead.egress import Policy
    from fairlead.services.external import ExternalAgents
    from fairlead.services.messages import Messages
    from fairlead.services.probing import Probing

    allowed = Policy(loopback=settings.allow_loopback_agents, private=settings.allow_private_agents)
    agents = ExternalAgents(core.kube, core.clock, allowed)
    stack.push_async_callback(agents.aclose)
    return Abroad(
        agents=agents,
        probing=Probing(core.kube, core.storage, core.clock, agents=agents),
        messages=Messages(core.kube, core.storage, core.clock, wakeups=core.wakeups, cluster=core.cluster),
        public_url=settings.public_url.rstrip("/"),
    )


def _build_callers(
    settings: GatewaySettings, core: _Core, sandbox: Sandbox, *, stack: AsyncExitStack
) -> tuple[Models, Toolbox, Programs]:
    """Return what reaches the world outside: providers of models, tools, and the sandbox."""
    from fairlead import egress
    from fairlead.llm.providers import Providers
    from fairlead.services.asking import Models
    from fairlead.services.modelhealth import ModelReports
    from fairlead.services.programs import Programs
    from fairlead.services.toolbox import Toolbox
    from fairlead.tools.child import Children

    models_at = egress.Policy(loopback=settings.allow_loopback_models, private=settings.allow_private_models)
    tools_at = egress.Policy(loopback=settings.allow_loopback_tools, private=settings.allow_private_tools)
    providers = Providers(egress.EgressTransport(models_at))
    web, declared = [egress.build_client(egress.EgressTransport(policy)) for policy in (egress.Policy(), tools_at)]
    for client in (providers, web, declared, sandbox):
        stack.push_async_callback(client.aclose)
    programs = Programs(sandbox)
    children = Children()
    built_in = build_tools(web, programs.answer, children)
    tools = Toolbox(core.kube, built_in, declared, children=children, timeout_seconds=settings.tool_timeout_seconds)
    reports = ModelReports(core.storage, core.clock, cluster=core.cluster)
    return Models(core.kube, core.clock, providers, find_tool=tools.info, report=reports.report), tools, programs


def _compose_agents(
    core: _Core, models: Models, tools: Toolbox, programs: Programs, *, external: ExternalAgents
) -> AgentServices:
    from fairlead.services import calls, handout, journal, results, sessions, turns, waiting

    storage, clock, known, woken = core.storage, core.clock, core.tasks, core.wakeups
    earlier = results.Results(storage, clock, known)
    return AgentServices(
        sessions=sessions.Sessions(storage, core.kube, clock, cluster=core.cluster, tasks=known, wakeups=woken),
        handout=handout.Handout(earlier, tools.describe),
        journal=journal.Journal(storage, known, clock),
        calls=calls.Calls(
            storage,
            clock,
            gateway=core.id,
            tasks=known,
            models=models,
            tools=tools,
            programs=programs,
            agents=external,
            wakeups=woken,
        ),
        waiting=waiting.Waiting(storage, clock, woken),
        turns=turns.Turns(storage, clock, known),
        results=earlier,
    )


def build_exporting(settings: ExportSettings, storage: Storage, clock: Clock, *, stack: AsyncExitStack) -> Exporting:
    """Return what exports traces; it does nothing where no collector is set."""
    from fairlead.services.exporting import Exporting

    if not settings.traces_url:
        return Exporting(storage, clock, None)
    import ssl

    from httpx import AsyncClient

    from fairlead.tracing.otlp import Collector, parse_headers

    trusted = ssl.create_default_context(cafile=settings.exporter_otlp_certificate)
    client = AsyncClient(verify=trusted, trust_env=False, timeout=10)
    stack.push_async_callback(client.aclose)
    sender = Collector(client, clock, url=settings.traces_url, headers=parse_headers(settings.traces_headers))
    return Exporting(storage, clock, sender, service=settings.service_name)


def build_tools(web: AsyncClient, run: RunProgram, children: Children) -> Registry:
    """Return the built-in tools.

    Args:
        web: a client that asks public addresses only.
        run: runs the programs that models write.
        children: compute what others wrote.
    """
    from fairlead.tools.code import CodeTool
    from fairlead.tools.http_request import HttpRequest
    from fairlead.tools.json_query import JsonQuery
    from fairlead.tools.registry import Registry
    from fairlead.tools.sql import Sql

    programs = (CodeTool("python", run), CodeTool("shell", run))
    return Registry((HttpRequest(web), JsonQuery(children), Sql(children), *programs))


@dataclass(frozen=True, slots=True)
class OperatorParts:
    """What the operator's process is made of before it is known whether it is the active one."""

    settings: OperatorSettings
    clock: Clock
    kube: KubeClient
    storage: Storage
    election: Election
    identity: str

    async def operator(self) -> Operator:
        """Bring the storage up to date and compose the operator; only the active process does this.

        Raises:
            Unavailable: the cluster or the storage does not answer.
        """
        await self.storage.migrate()
        return _compose_operator(self, cluster=await cluster_id(self.kube))

    async def aclose(self) -> None:
        """Close every connection."""
        await self.storage.aclose()
        await self.kube.aclose()


async def build_operator(settings: OperatorSettings) -> OperatorParts:
    """Read the configuration; nothing is connected yet."""
    from fairlead.kube import KubeClient
    from fairlead.services.election import Election
    from fairlead.storage import open_storage

    clock = SystemClock()
    kube = await KubeClient.connect(kubeconfig=settings.kubeconfig, user_agent=f"fairlead-operator/{__version__}")
    identity = settings.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    seconds = settings.leader_lease_seconds
    election = Election(kube, clock, namespace=settings.namespace, identity=identity, seconds=seconds)
    return OperatorParts(settings, clock, kube, open_storage(settings.storage_url), election, identity)


def build_runs(  # noqa: PLR0913 - what it composes
    storage: Storage,
    seen: Objects,
    *,
    applier: Applier,
    checks: GraphChecks,
    pods: PodSettingsSource,
    clock: Clock,
    cluster: str,
) -> Runs:
    """Return what looks after WorkflowRuns."""
    from fairlead.services import ending, intake, planning, runs, slots

    places = slots.Slots(storage, seen, clock, cluster=cluster)
    endings = ending.Endings(storage, clock)
    taking = intake.Intake(
        storage,
        seen,
        applier=applier,
        checks=checks,
        slots=places,
        endings=endings,
        planning=planning.Planning(storage, clock, cluster=cluster),
        clock=clock,
        cluster=cluster,
    )
    return runs.Runs(
        storage, seen, applier=applier, intake=taking, slots=places, endings=endings, pods=pods, clock=clock
    )


def _pod_defaults(settings: OperatorSettings) -> PodDefaults:
    """Return what the operator's settings say of all agent pods."""
    from fairlead.services.podsettings import PodDefaults

    return PodDefaults(
        namespace=settings.namespace,
        image=settings.agent_image,
        pull_policy=settings.agent_image_pull_policy,
        gateway_url=settings.gateway_url,
        fixed_user=settings.agent_fixed_user,
    )


def _compose_operator(parts: OperatorParts, *, cluster: str) -> Operator:
    from fairlead.services import applying, declared, gatewayprobe, graphchecks, liveness, objects, podsettings
    from fairlead.services.modelhealth import ModelHealth
    from fairlead.services.operator import Operator
    from fairlead.services.pools import Pools
    from fairlead.services.watchdog import Watchdog

    settings, kube, storage, clock = parts.settings, parts.kube, parts.storage, parts.clock
    seen, checks = objects.Objects(), graphchecks.GraphChecks()
    election = parts.election
    applier = applying.Applier(kube, seen, clock, reporter=parts.identity, leads=lambda: election.holds)
    pods = podsettings.PodSettingsSource(kube, clock, _pod_defaults(settings))
    lives = liveness.Liveness(
        kube,
        storage,
        seen,
        applier=applier,
        clock=clock,
        probe=gatewayprobe.GatewayProbe(pods),
        interval=settings.lease_poll_seconds,
        namespaces=settings.watch_namespaces,
    )
    work = Pools(storage, clock, cluster=cluster, calm_seconds=settings.scale_down_seconds)
    health = ModelHealth(clock, cluster=cluster)
    return Operator(
        kube,
        storage,
        seen,
        applier=applier,
        planner=declared.Planner(seen, checks, pods, pools=work, lives=lives, health=health),
        pools=work,
        health=health,
        runs=build_runs(storage, seen, applier=applier, checks=checks, pods=pods, clock=clock, cluster=cluster),
        liveness=lives,
        watchdog=Watchdog(kube, seen, settings.watch_namespaces),
        clock=clock,
        cluster=cluster,
        namespaces=settings.watch_namespaces,
        resync_seconds=settings.resync_seconds,
    )

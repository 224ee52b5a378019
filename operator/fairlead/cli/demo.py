"""``demo``: starts Fairlead here, runs the quickstart, shows what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fairlead.cli.options import HOME_DEFAULT, Target, command, home_option, image_option, program, runtime_option

if TYPE_CHECKING:
    from fairlead.cli.session import Session
    from fairlead.localcluster.supervisor.home import Home

OLLAMA: Final = "http://127.0.0.1:11434"
_PREFERRED: Final = ("llama3.2", "llama3.1", "llama3", "qwen3", "qwen2.5", "gemma3", "mistral", "phi4")
_LOCAL_MESSAGES: Final = 24
"""Messages that a model on this machine is given: it takes seconds for each."""
_LOCAL_PROVIDERS: Final = ("ollama", "ollama_chat")


@command(
    examples="""
    fairlead demo
    fairlead demo --model openai/gpt-4.1-mini      # needs OPENAI_API_KEY in the environment
    fairlead demo --scripted --stop
    """
)
@home_option
@click.option("--model", default="", help="A LiteLLM model such as openai/gpt-4.1-mini; default: Ollama if it answers.")
@click.option("--scripted", is_flag=True, help="Use the scripted model, also when Ollama answers.")
@click.option("--messages", type=click.IntRange(1, 500), help="The most messages that are looked at.")
@click.option("--stop", is_flag=True, help="Stop Fairlead when the run has ended.")
@runtime_option
@image_option
def demo(home: Path, *, model: str, scripted: bool, messages: int | None, stop: bool, **wish: str) -> int:
    """Start Fairlead on this machine and run the quickstart: 240 support messages become a report.

    Without a key and without a network a scripted model answers. Nothing leaves this machine unless you give --model.
    """
    import asyncio

    from fairlead.cli import printing
    from fairlead.cli.local import Wish, start_detached
    from fairlead.cli.session import run_session, runs
    from fairlead.clock import SystemClock
    from fairlead.localcluster.supervisor.down import stop_home
    from fairlead.localcluster.supervisor.home import Home

    spec, secret, said = choose_model(model, scripted=scripted)
    place = Home(home.resolve())
    if not runs(place):
        printing.hint(f"Starting Fairlead in {place.root}")
        start_detached(place, Wish(runtime=wish["runtime"], agent_image=wish["agent_image"]))
    printing.hint(said)
    local = spec is not None and str(spec["model"]).partition("/")[0] in _LOCAL_PROVIDERS
    count = messages or (_LOCAL_MESSAGES if local else None)
    target = Target(place.root, kubeconfig=str(place.kubeconfig), namespace="default")
    objects = build_objects(spec, secret=secret, messages=count)
    try:
        return run_session(target, lambda session: _demo(session, objects, stop=stop))
    finally:
        if stop:
            asyncio.run(stop_home(place, SystemClock()))
            printing.hint("Fairlead is stopped")


def choose_model(model: str, *, scripted: bool) -> tuple[dict[str, Any] | None, str, str]:
    """Return the spec of the Model (None: the quickstart's scripted one), its key, and what a person is told.

    Raises:
        TerminalError: a model was asked for whose key is not there.
        UsageError: the model names no provider.
    """
    if model:
        provider, slash, _ = model.partition("/")
        if not slash:
            raise click.UsageError(f'"{model}" names no provider; write it as in openai/gpt-4.1-mini')
        key = "" if provider in _LOCAL_PROVIDERS else _provider_key(provider)
        return _spec(model, key), key, f"Model: {model}"
    found = "" if scripted else ollama_model()
    if found:
        return _spec(f"ollama_chat/{found}", ""), "", f"Model: {found}, by the Ollama that runs here"
    return None, "", "Model: scripted answers, no key and no network needed (Ollama would be used if it ran here)"


def _spec(model: str, key: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"model": model}
    if key:
        spec["apiKey"] = {"valueFrom": {"secretKeyRef": {"name": "quickstart-model", "key": "api-key"}}}
    if model.startswith("ollama"):
        spec["baseURL"] = OLLAMA
    return spec


def _provider_key(provider: str) -> str:
    from fairlead.errors import TerminalError
    from fairlead.settings import child_environment

    name = f"{provider.upper().replace('-', '_')}_API_KEY"
    key = child_environment({}).get(name, "")
    if not key:
        raise TerminalError(f"{provider} needs a key: export {name}=… and call this again")
    return key


def ollama_model() -> str:
    """Return a chat model that the Ollama on this machine has; nothing if none answers."""
    import httpx

    try:
        answer = httpx.get(f"{OLLAMA}/api/tags", timeout=1, trust_env=False).raise_for_status().json()
        names = [str(entry["name"]) for entry in answer["models"] if "embed" not in entry["name"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""
    liked = [name for wish in _PREFERRED for name in names if name.partition(":")[0] == wish]
    return next(iter([*liked, *names]), "")


def build_objects(spec: dict[str, Any] | None, *, secret: str, messages: int | None) -> list[dict[str, Any]]:
    """Return the quickstart's objects, the run last, with the model that was chosen."""
    from fairlead.cli.files import read_objects
    from fairlead.localcluster.data import find_data

    objects = read_objects([str(find_data("configs") / "quickstart")])
    for obj in objects:
        if obj["kind"] == "Model" and spec is not None:
            obj["spec"] = spec
        if obj["kind"] == "WorkflowRun":
            obj["metadata"] = {"generateName": f"{obj['metadata']['name']}-", "namespace": "default"}
            obj["spec"]["inputs"] = {**obj["spec"].get("inputs", {}), **({"messages": messages} if messages else {})}
    if secret:
        meta = {"name": "quickstart-model"}
        objects.insert(0, {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"api-key": secret}})
    return sorted(objects, key=lambda obj: obj["kind"] == "WorkflowRun")


async def _demo(session: Session, objects: list[dict[str, Any]], *, stop: bool) -> int:
    from fairlead.cli import exits, printing
    from fairlead.cli.apply import apply_objects
    from fairlead.cli.follow import Follow, accompany

    *declared, wanted = objects
    printing.hint("\nfairlead apply -f configs/quickstart/")
    if code := await apply_objects(session, declared, force=True, say=printing.hint):
        return code
    run = await session.kube.create(wanted)
    printing.hint(f"workflowrun.fairlead.dev/{run['metadata']['name']} created\n")
    code = await accompany(session, run, Follow(watch=True))
    if code == exits.OK:
        await _show_result(session, run["metadata"], stop=stop)
    return code


async def _show_result(session: Session, meta: dict[str, Any], *, stop: bool) -> None:
    from fairlead.cli import printing
    from fairlead.cli.costing import run_cost_rows
    from fairlead.cli.gateway import open_gateway

    async with open_gateway(session) as gateway:
        shown = await gateway.output(meta["namespace"], meta["uid"])
        record = await gateway.run(meta["namespace"], meta["uid"])
    printing.hint("")
    printing.print_value(shown["output"])
    rows = run_cost_rows({key: record[key] for key in ("name", "state", "cost", "usage", "scriptedCalls")})
    printing.hint("\n" + "\n".join(f"{name:<8}{value}" for name, value in rows))
    if not stop and session.local is not None:
        printing.hint(next_steps(session.local, meta["name"]))


def next_steps(home: Home, run: str) -> str:
    """Return where to look after the demo."""
    name = program()
    other = "" if home.root == Path(HOME_DEFAULT).expanduser() else f" --home {home.root}"
    return (
        f"\nFairlead goes on running. Look around:\n"
        f"  export KUBECONFIG={home.kubeconfig}\n"
        f"  kubectl get flow,run,fagent,llm        kubectl describe run {run}\n"
        f"  {name} trace {run}   {name} logs {run}   {name} cost\n"
        f"  {name} run support-report --watch\n"
        f"Stop it: {name} down{other}"
    )

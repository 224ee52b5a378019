"""The graph of a workflow: its checks and its scheduler. Pure: no clock, no I/O, no randomness.

Does not belong here: whatever runs a node.
"""

from fairlead_agent.graph.checks import check
from fairlead_agent.graph.endings import Outcome
from fairlead_agent.graph.entries import MAX_OUTPUT, STOPPED, TIMEOUT
from fairlead_agent.graph.frame import Lookup, Work
from fairlead_agent.graph.model import Cache, Graph, Node, Repeat, Retry
from fairlead_agent.graph.nesting import check_nested, workflow_names
from fairlead_agent.graph.parsing import parse_graph
from fairlead_agent.graph.schedule import Idle, Schedule, step
from fairlead_agent.graph.tokens import output_size
from fairlead_agent.graph.tries import Changes
from fairlead_agent.problems import GraphError, Problem

__all__ = [
    "MAX_OUTPUT",
    "STOPPED",
    "TIMEOUT",
    "Cache",
    "Changes",
    "Graph",
    "GraphError",
    "Idle",
    "Lookup",
    "Node",
    "Outcome",
    "Problem",
    "Repeat",
    "Retry",
    "Schedule",
    "Work",
    "check",
    "check_nested",
    "output_size",
    "parse_graph",
    "step",
    "workflow_names",
]

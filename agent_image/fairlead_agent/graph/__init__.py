"""The graph of a workflow: its checks and its scheduler. Pure: no clock, no I/O, no randomness.

Does not belong here: whatever runs a node.
"""

from fairlead_agent.graph.checks import check
from fairlead_agent.graph.model import Graph, Node, Retry
from fairlead_agent.graph.parsing import parse_graph
from fairlead_agent.graph.schedule import MAX_OUTPUT, STOPPED, TIMEOUT, Outcome, Schedule, Work, output_size, step
from fairlead_agent.problems import GraphError, Problem

__all__ = [
    "MAX_OUTPUT",
    "STOPPED",
    "TIMEOUT",
    "Graph",
    "GraphError",
    "Node",
    "Outcome",
    "Problem",
    "Retry",
    "Schedule",
    "Work",
    "check",
    "output_size",
    "parse_graph",
    "step",
]

"""The graph of a workflow: its checks and its scheduler. Pure: no clock, no I/O, no randomness.

Does not belong here: whatever runs a node.
"""

from fairlead_agent.graph.checks import check
from fairlead_agent.graph.model import Graph, Node, Retry
from fairlead_agent.graph.parsing import parse_graph
from fairlead_agent.graph.problems import GraphError, Problem

__all__ = ["Graph", "GraphError", "Node", "Problem", "Retry", "check", "parse_graph"]

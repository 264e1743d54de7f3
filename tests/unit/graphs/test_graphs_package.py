"""What the package offers, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from graph_doubles import ScriptedModel

import graphs
from graphs.registry import GRAPHS, UnknownGraphError, find_graph

ROOT = Path(__file__).parents[3]


def test_public_names_are_sorted_and_there():
    assert graphs.__all__ == sorted(graphs.__all__)
    assert dir(graphs) == graphs.__all__
    assert all(getattr(graphs, name) is not None for name in graphs.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'build_magic_graph'"):
        _ = graphs.build_magic_graph


def test_importing_the_package_loads_neither_langgraph_nor_langchain():
    code = (
        "import sys, graphs; print([m for m in ('langgraph', 'langchain_core', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_every_registered_graph_is_described_and_found():
    for name, kind in GRAPHS.items():
        assert kind.name == name
        assert kind.description.endswith(".")
        assert find_graph(name) is kind


def test_a_graph_describes_its_input_and_output_as_json_schema():
    graph = graphs.build_react_graph(model=ScriptedModel(script=["x"]))
    for schema in (graph.get_input_jsonschema(), graph.get_output_jsonschema()):
        assert list(schema["properties"]) == ["messages"]
        json.dumps(schema)


def test_an_unknown_graph_is_named_with_the_closest_one():
    with pytest.raises(UnknownGraphError, match=r"'reakt'; did you mean 'react'\? \(there are: react"):
        find_graph("reakt")

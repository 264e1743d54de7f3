import json

import pytest
from langchain_core.tools import StructuredTool

from tools import ToolPolicy, ToolPolicyError, ToolTimeoutError, policy_of, tool, with_policy


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"retries": -1}, "retries=-1"),
        ({"retries": 2}, "retry_on"),
        ({"retry_on": (OSError,)}, "retries"),
        ({"retries": 1, "retry_on": (KeyboardInterrupt,)}, "KeyboardInterrupt"),
        ({"retries": 1, "retry_on": ("OSError",)}, "OSError"),
        ({"retries": 1, "retry_on": (ToolTimeoutError,)}, "idempotent"),
        ({"backoff": -1}, "backoff=-1"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": float("nan")}, "concurrency=nan"),
        ({"retries": 1.5, "retry_on": (OSError,)}, "retries=1.5"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"max_output": 10}, "max_output=10"),
        ({"idempotent": "false"}, "idempotent='false'"),
        ({"approval": None}, "approval=None"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused_and_the_field_named(fields, named):
    with pytest.raises(ToolPolicyError, match=named):
        ToolPolicy(**fields)


def test_a_policy_cannot_be_changed():
    with pytest.raises(AttributeError):
        ToolPolicy().timeout = 1  # type: ignore[misc]


def test_a_policy_is_plain_json():
    policy = ToolPolicy(retries=1, retry_on=(ConnectionError,))
    assert json.loads(json.dumps(policy.to_dict()))["retry_on"] == ["ConnectionError"]


def test_any_langchain_tool_can_carry_a_policy_and_the_original_stays_as_it_is():
    def add(a: int) -> int:
        """Add."""
        return a

    original = StructuredTool.from_function(add, metadata={"owner": "me"})
    carrying = with_policy(original, ToolPolicy(timeout=3))
    assert policy_of(carrying).timeout == 3
    assert policy_of(original) == ToolPolicy()
    assert carrying.metadata is not None
    assert carrying.metadata["owner"] == "me"
    assert policy_of(carrying.model_copy(update={"name": "other"})).timeout == 3


def test_the_decorators_policy_travels_with_the_tool():
    @tool(policy=ToolPolicy(approval=True))
    def pay(amount: int) -> str:
        """Pay."""
        return str(amount)

    assert policy_of(pay).approval

"""The tools that an agent may be given, by name, with the place each one comes from.

Order is fixed by name, whatever the order of registration: the list of tools stands at the head of every
prompt, and a prompt that begins differently cannot be served from the prefix cache.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_function

from tools.arguments import closest, without_foreign_patterns
from tools.decorator import tool as make_tool
from tools.errors import ToolRegistrationError, UnknownToolError
from tools.policy import ToolPolicy, policy_of, with_policy
from tools.reflection import hide_config
from tools.sources.entry_points import plugins, source_of, tools_of_plugin
from tools.sources.mcp import McpConnection, McpServer
from tools.sources.modules import tools_of_module
from tools.sources.toolkits import tools_of_toolkit

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what every model's tool format can spell


@dataclass(frozen=True, kw_only=True)
class ToolProblem:
    """A source that gave no tools because it is broken."""

    source: str
    """The plugin, with its package."""

    error: ToolRegistrationError
    """What is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class ToolDescription:
    """A registered tool, for people and for ``--json``."""

    name: str
    """What a model calls it by."""

    description: str
    """What a model reads about it."""

    parameters: dict[str, Any]
    """The JSON schema of its arguments, as a model gets it."""

    source: str
    """The plugin, module, file or function that it comes from."""

    policy: ToolPolicy
    """How it may be run."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return vars(self) | {"policy": self.policy.to_dict()}


class ToolRegistry:
    """Collects tools from code, modules, files and installed packages."""

    def __init__(
        self,
        tools: Iterable[BaseTool | Callable[..., Any]] = (),
        *,
        policies: Mapping[str, ToolPolicy] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Start with ``tools``.

        Args:
            tools: LangChain tools, or functions that become tools.
            policies: By tool name, in the place of the tools' own; also for tools that are added later.
            options: By plugin name (or by the name that a module is added under), what is passed to its
                ``build_tools``, for example ``{"builtin": {"files_root": "notes"}}``.

        Raises:
            ToolRegistrationError: Two tools have one name, or one of them cannot be used.
        """
        self._tools: dict[str, BaseTool] = {}
        self._sources: dict[str, str] = {}
        self._problems: list[ToolProblem] = []
        self._connections: dict[McpConnection, int] = {}  # and which of its lists has been taken over
        self._policies = dict(policies or {})
        self._options = {name: dict(values) for name, values in (options or {}).items()}
        self.add(*tools)

    def add(self, *tools: BaseTool | Callable[..., Any], source: str | None = None) -> None:
        """Add tools, all of them or, if one cannot be added, none. The same tool twice counts once.

        Raises:
            ToolRegistrationError: A name is taken (both sources are named), or a tool cannot be used.
        """
        made: dict[str, BaseTool] = {}
        sources: dict[str, str] = {}
        for given in tools:
            tool = given if isinstance(given, BaseTool) else make_tool(given)
            origin = source or _origin(given)
            holder = made.get(tool.name) or self._tools.get(tool.name)
            if holder is not None and not _is_same(holder, tool):
                other = sources.get(tool.name) or self._sources[tool.name]
                raise ToolRegistrationError(
                    f"two tools are called {tool.name!r}: one from {other}, one from {origin}. "
                    "Rename one of them, or leave one source out"
                )
            _check(tool, origin)
            if holder is None:
                made[tool.name], sources[tool.name] = tool, origin
        for name, tool in made.items():
            self._tools[name] = with_policy(tool, self._policies[name]) if name in self._policies else tool
        self._sources |= sources

    def add_module(self, name: str | os.PathLike[str]) -> None:
        """Add the tools of a module (``"package.module"``) or of a file (``"path/to/file.py"``).

        Raises:
            ToolRegistrationError: It cannot be loaded, has no tools, or one of them cannot be added.
        """
        source, tools = tools_of_module(name, self._options.get(os.fspath(name), {}))
        self.add(*tools, source=source)

    def add_plugins(self, *, exclude: Collection[str] = ()) -> None:
        """Add the tools of all installed packages that declare the entry-point group ``vllm_agent.tools``.

        A plugin that cannot be loaded costs only its own tools: it is logged and listed in :attr:`problems`.

        Args:
            exclude: Names of plugins to leave out.

        Raises:
            ToolRegistrationError: Two tools have one name; leave one plugin out with ``exclude``.
        """
        left_out = {exclude} if isinstance(exclude, str) else exclude  # a name has other names in it
        for point in plugins():
            if point.name in left_out:
                continue
            source = source_of(point)
            try:
                tools = tools_of_plugin(point, self._options.get(point.name, {}))
                for tool in tools:
                    _check(tool, source)
            except ToolRegistrationError as error:
                logger.warning("no tools from %s: %s", source, error)
                self._problems.append(ToolProblem(source=source, error=error))
            else:
                self.add(*tools, source=source)

    def add_toolkit(self, path: str, **options: Any) -> None:
        """Add the tools of a LangChain toolkit (``"package.module:Class"``), built with ``options``.

        Raises:
            ToolRegistrationError: It cannot be loaded or built, or one of its tools cannot be added.
        """
        source, tools = tools_of_toolkit(path, options)
        self.add(*tools, source=source)

    def add_mcp(self, server: McpServer) -> None:
        """Add the tools of an MCP server; while it does not answer, it is listed in :attr:`problems`.

        Raises:
            ToolRegistrationError: Two tools have one name.
        """
        connection = McpConnection(server)
        self._connections[connection] = 0
        self._ask(connection)

    def refresh(self) -> None:
        """Ask all MCP servers for their tools now: also those that did not answer before.

        Without it, a list that a server has changed is taken over when the registry is next looked at after
        the connection has noticed, which is at once or at the next health check. A clash is then no error but
        one of :attr:`problems`, and the server's old tools stay.

        Raises:
            ToolRegistrationError: Two tools have one name now.
        """
        for connection in self._connections:
            self._ask(connection)

    def close(self) -> None:
        """End the sessions with MCP servers; their tools answer with an error from then on."""
        for connection in self._connections:
            connection.close()

    def _ask(self, connection: McpConnection) -> None:
        try:
            connection.tools()
        except ToolRegistrationError as error:  # its old tools stay: the server may come back
            logger.warning("no tools from %s", error)
            return
        self._take_over(connection)

    def _sync(self) -> None:
        """Take over the lists that have changed; nothing is asked."""
        for connection, taken in self._connections.items():
            if connection.changes != taken:
                try:
                    self._take_over(connection)
                except ToolRegistrationError as error:
                    logger.warning("the tools of %s stay as they were: %s", connection.source, error)
                    self._problems.append(ToolProblem(source=connection.source, error=error))

    def _take_over(self, connection: McpConnection) -> None:
        """Put the tools of the server's latest list in the place of its old ones, or change nothing."""
        self._connections[connection] = connection.changes
        self._problems = [each for each in self._problems if each.source != connection.source]
        tools = []
        for tool in connection.latest_tools():
            try:
                _check(tool, connection.source)
            except ToolRegistrationError as error:  # the others may be fine
                logger.warning("left out: %s", error)
                self._problems.append(ToolProblem(source=connection.source, error=error))
            else:
                tools.append(tool)
        old = [name for name, source in self._sources.items() if source == connection.source]
        kept = {name: (self._tools.pop(name), self._sources.pop(name)) for name in old}
        try:
            self.add(*tools, source=connection.source)
        except ToolRegistrationError:
            self._tools |= {name: tool for name, (tool, _) in kept.items()}
            self._sources |= {name: source for name, (_, source) in kept.items()}
            raise

    @property
    def problems(self) -> tuple[ToolProblem, ...]:
        """The plugins that could not be loaded, and the MCP servers that do not answer now."""
        self._sync()
        silent = [
            ToolProblem(
                source=each.source,
                error=ToolRegistrationError(f"{each.source} does not answer: {each.error}"),
            )
            for each in self._connections
            if each.error is not None
        ]
        return (*self._problems, *silent)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the registry's order."""
        self._sync()
        return tuple(sorted(self._tools))

    def get(self, name: str) -> BaseTool:
        """The tool of that name.

        Raises:
            UnknownToolError: There is none; close names are given.
        """
        self._sync()
        try:
            return self._tools[name]
        except KeyError:
            known = f"Tools: {', '.join(self.names)}." if self._tools else "The registry is empty."
            message = f"there is no tool {name!r}.{closest(name, self._tools)} {known}"
            raise UnknownToolError(message) from None

    def select(self, names: Iterable[str] | None = None) -> list[BaseTool]:
        """The named tools (all of them for ``None``), in the registry's order, each once.

        Raises:
            UnknownToolError: One of them does not exist.
        """
        if isinstance(names, str):  # one name is an iterable of letters
            names = [names]
        return [self.get(name) for name in (self.names if names is None else sorted(set(names)))]

    def describe(self, name: str) -> ToolDescription:
        """What is known about one tool.

        Raises:
            UnknownToolError: There is none of that name.
        """
        tool = self.get(name)
        function = convert_to_openai_function(tool)
        return ToolDescription(
            name=name,
            description=function["description"],
            parameters=function["parameters"],
            source=self._sources[name],
            policy=policy_of(tool),
        )

    def __iter__(self) -> Iterator[BaseTool]:
        return iter(self.select())

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


def default_registry(
    *,
    policies: Mapping[str, ToolPolicy] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    exclude: Collection[str] = (),
) -> ToolRegistry:
    """A registry with the built-in tools and those of every installed plugin; see :class:`ToolRegistry`."""
    registry = ToolRegistry(policies=policies, options=options)
    registry.add_plugins(exclude=exclude)
    return registry


def _check(tool: BaseTool, source: str) -> None:
    """Refuse at registration what would fail in the middle of a conversation."""
    if not _NAME.fullmatch(tool.name):
        raise ToolRegistrationError(
            f"the name {tool.name!r} (from {source}) will not do: use 1 to 64 letters, digits, '_' or '-'"
        )
    if not tool.description.strip():
        raise ToolRegistrationError(f"tool {tool.name!r} (from {source}) has no description for the model")
    try:
        hide_config(tool)
        convert_to_openai_function(tool)
        if isinstance(tool.args_schema, dict):
            _check_schema(tool.args_schema)
    except Exception as error:  # Pydantic, LangChain and jsonschema have each their own
        raise ToolRegistrationError(
            f"tool {tool.name!r} (from {source}) has no usable JSON schema: {type(error).__name__}: {error}"
        ) from error


def _check_schema(schema: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    validator_for(schema, default=Draft202012Validator).check_schema(without_foreign_patterns(schema))


def _is_same(one: BaseTool, other: BaseTool) -> bool:
    """Whether these are one tool: the same object, or a copy of it with another policy."""
    bodies = [getattr(tool, "func", None) or getattr(tool, "coroutine", None) for tool in (one, other)]
    return one is other or (bodies[0] is not None and bodies[0] is bodies[1])


def _origin(given: BaseTool | Callable[..., Any]) -> str:
    body = getattr(given, "func", None) or getattr(given, "coroutine", None) or given
    where = body if hasattr(body, "__qualname__") else type(body)
    return f"{where.__module__}.{where.__qualname__}"

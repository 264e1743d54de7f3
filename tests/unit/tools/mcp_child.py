"""A real MCP server for the tests: ``mcp_child.py stdio`` or ``mcp_child.py PORT``."""

import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("test")


@server.tool()
def add(a: int, b: int, config: str = "") -> str:
    """Add two numbers."""
    return f"{a + b}{config}"


@server.tool()
def pid() -> str:
    """Tell the process."""
    return str(os.getpid())


@server.tool()
async def grow(context: Context) -> str:
    """Offer one more tool, and say so."""
    server.add_tool(lambda: "grown", name="grown", description="Come later.")
    await context.notify_tools_changed()
    return "done"


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("the pipe is cold")


if os.environ.get("EXTRA_FILE") and Path(os.environ["EXTRA_FILE"]).exists():

    @server.tool()
    def extra() -> str:
        """Come later."""
        return "extra"


if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))

"""How models call tools that were never taught to: formats on the wire form, above the engines."""

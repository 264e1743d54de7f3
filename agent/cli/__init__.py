"""The command line: nouns, then verbs. A command parses, calls :mod:`agent.app`, and renders."""

"""What is installed and set up here, what is wrong with it, and how to mend it.

Each file looks at one thing, changes nothing, and gives :class:`~agent.doctor.findings.Finding` records. What
can crash a process or takes seconds to import (torch, vLLM) is read from the metadata of its package, and
``deep`` starts a child process for the rest. It is part of the edge, beside :mod:`agent.app`.
"""

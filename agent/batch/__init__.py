"""Many conversations at once, from a file of tasks into a file of answers.

``jobs`` reads the tasks, ``output`` keeps the answers through a crash, ``answering`` answers one task in its
conversation. ``asyncio_runner`` does so for many at once in this process, ``ray_runner`` on the nodes of a
Ray cluster.
"""

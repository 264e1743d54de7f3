"""Many conversations at once, from a file of tasks into a file of answers.

``jobs`` reads the tasks, ``output`` keeps the answers through a crash, ``answering`` answers one task in its
conversation, and ``asyncio_runner`` does so for many at once, in this process. A runner is anything that
takes tasks and hands over outcomes, so that another one can spread the same tasks over machines.
"""

"""vLLM's server as a process of this user: started, found again, watched and stopped.

``vllm-agent serve`` starts one for others; ``run`` and ``chat`` find one for their model, or start one that
stops itself when nobody has asked it anything for a while. What runs is known from small files in a directory
that only this user can read (:mod:`~agent.serving.records`); a file counts only while the process that it
names lives and answers with the file's own id.

The parts: :mod:`~agent.serving.flags` (what the user typed, checked), :mod:`~agent.serving.command` (the
command of the server's process), :mod:`~agent.serving.life` (start, wait, stop), :mod:`~agent.serving.output`
(what its log says), :mod:`~agent.serving.watch` (inside the server: who it is, and when it was last used),
:mod:`~agent.serving.warm` (find one or start one) and :mod:`~agent.serving.engine` (it as an engine).
"""

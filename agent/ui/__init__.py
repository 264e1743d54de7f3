"""``vllm-agent ui``: a page in the browser for those without a Studio account.

What is shown is decided here without a browser (:mod:`transcript`, :mod:`decisions`, :mod:`talk`,
:mod:`desk`); the widgets (:mod:`page`, :mod:`panels`) only show it, with NiceGUI, which brings all it needs
along and works without a network. :mod:`guard` keeps everybody else out, :mod:`server` serves.
"""

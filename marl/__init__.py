"""Multi-agent methods: learners for several agents, opponent models, communication, Markov games."""

if not __name__.startswith("presage."):
    raise ImportError(f"write `import presage.marl`; the bare name {__name__!r} would load a second copy of it")

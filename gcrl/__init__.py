"""Goal-conditioned methods: hindsight, foresight, goal generation and graphs over goals."""

if not __name__.startswith("presage."):
    raise ImportError(f"write `import presage.gcrl`; the bare name {__name__!r} would load a second copy of it")

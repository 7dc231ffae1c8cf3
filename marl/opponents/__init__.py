"""Models of the other agents, teammates included."""

if not __name__.startswith("presage."):
    raise ImportError(
        f"write `import presage.marl.opponents`; the bare name {__name__!r} would load a second copy of it"
    )

"""Training scenarios: each names a game, a method and the numbers."""

if not __name__.startswith("presage."):
    raise ImportError(f"write `import presage.scenarios`; the bare name {__name__!r} would load a second copy of it")

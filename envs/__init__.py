"""Adapters from other libraries' environments to `presage.common.game.Game`, and games of our own."""

if not __name__.startswith("presage."):
    raise ImportError(f"write `import presage.envs`; the bare name {__name__!r} would load a second copy of it")

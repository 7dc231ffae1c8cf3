"""What both families use: games as tensors, replay, learned dynamics, imagination, planning, runs and reports."""

if not __name__.startswith("presage."):
    raise ImportError(f"write `import presage.common`; the bare name {__name__!r} would load a second copy of it")

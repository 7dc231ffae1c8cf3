"""Where goals come from: sources of the goals that episodes pursue while a policy learns."""

if not __name__.startswith("presage."):
    raise ImportError(f"write `import presage.gcrl.goals`; the bare name {__name__!r} would load a second copy of it")

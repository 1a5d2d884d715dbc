"""The workshop: what developers and CI run, not part of the installed packages."""

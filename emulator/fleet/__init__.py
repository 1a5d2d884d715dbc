"""Many devices: who they are, how they run, where they are kept, what was measured."""

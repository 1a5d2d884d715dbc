"""One virtual device: its state, its keychain, its profiles, and what it does with commands."""

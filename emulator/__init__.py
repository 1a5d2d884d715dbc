"""Virtual iPhones and iPads, and stand-ins for the Apple services they need."""

"""Stand-ins for the Apple services that devices and MDM servers talk to."""

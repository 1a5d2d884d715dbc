"""A minimal, honest MDM server."""

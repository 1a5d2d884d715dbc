"""ACME (RFC 8555) with device-attest-01."""

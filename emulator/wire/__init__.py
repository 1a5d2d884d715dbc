"""Bytes and typed values of every message a device sends or receives: no clock, no randomness, no sockets."""

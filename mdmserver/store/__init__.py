"""Where the server keeps what it must not forget."""

"""`python -m certs` is `mdm-certs`."""

from certs.cli import main

main()

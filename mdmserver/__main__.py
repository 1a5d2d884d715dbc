"""`python -m mdmserver`."""

from mdmserver.cli import main

main()

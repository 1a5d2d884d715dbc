"""`python -m emulator` is `mdm-emulator`."""

from emulator.cli import main

main()

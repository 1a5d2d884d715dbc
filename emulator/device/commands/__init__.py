"""What a device does for each MDM command: its effect on the device and the exact reply, one module a family."""

"""One module a family of MDM commands: RequestType -> effect on the device and the exact reply."""

"""The agent on a device: placing it, calling its verbs, sending it contents."""

"""The agent on a device: install it, call its verbs, send it contents."""

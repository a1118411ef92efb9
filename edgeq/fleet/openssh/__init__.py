"""The SSH transport by the `ssh` program of this machine, with its keys and its configuration."""

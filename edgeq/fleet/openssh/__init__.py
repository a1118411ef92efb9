"""The same transport by the `ssh` program of this machine: its ciphers, its keys, its configuration."""

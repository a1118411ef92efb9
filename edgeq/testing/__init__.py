"""Public test parts: the loopback device, a real SSH server without hardware."""

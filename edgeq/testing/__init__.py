"""Public test parts: the loopback device, a real SSH server without hardware, and a link that can fail."""

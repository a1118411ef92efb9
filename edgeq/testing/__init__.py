"""Public test tools: the loopback device (a real SSH server without hardware) and a faulty link."""

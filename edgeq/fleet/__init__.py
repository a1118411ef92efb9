"""The fleet: inventory, SSH transport, the agent's client, deploy plan and apply."""

"""Runs the agent: `python edgeq-agent.pyz VERB`."""

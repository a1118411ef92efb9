"""The worker's jobs: one module for each verb."""

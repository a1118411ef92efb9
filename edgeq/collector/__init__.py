"""The collector: telemetry windows from devices into the store, exactly once."""

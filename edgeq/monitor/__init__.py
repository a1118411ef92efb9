"""The monitor: sequential drift tests over collected windows."""

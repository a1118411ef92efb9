"""SSH by paramiko: the way to a device, its keys, a connection that notices when the other end is gone."""

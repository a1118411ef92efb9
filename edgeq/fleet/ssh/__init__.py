"""The SSH transport by paramiko: routes through jump hosts, host keys, logins, dead-link detection."""

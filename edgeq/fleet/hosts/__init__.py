"""Hosts of files that other tools use (CSV, Ansible, ssh), and their enrolment as devices."""

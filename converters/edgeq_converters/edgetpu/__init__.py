"""Edge TPU readiness: Coral's rules, the report and the compiler."""

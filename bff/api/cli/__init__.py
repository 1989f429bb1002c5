"""The commands of `flask`: `doctor`, `diagnose` and `db`."""

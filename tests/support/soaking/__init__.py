"""The soak's cases: kills, damaged files and nonsense, each judged by how a command took it (`tests/soak.py`)."""

"""The commands of `python -m utils`. Each module registers its commands. It imports heavy modules only when needed."""

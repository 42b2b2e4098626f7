"""The project's package: the team's files here, the machinery they plug into in `mlops`."""

"""Machinery kept up to date by the template; the team's files never need to change it."""

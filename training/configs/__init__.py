"""Configs of trainings that come with the project, one YAML file each."""

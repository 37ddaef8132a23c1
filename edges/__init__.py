"""Where every part of persona meets the outside: command lines, settings in YAML, model servers. Imports no other part."""

"""Where every part of persona meets the outside: command lines, settings, model servers. Imports no other."""

"""Where every part of persona meets the outside: command lines and model servers. Imports no other part."""

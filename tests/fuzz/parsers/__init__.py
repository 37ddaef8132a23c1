"""One file for each parser. A file here is a parser of its name; it has

MODULES        what is instrumented, so that new paths through it are noticed
seeds()        inputs to begin with, bytes each
parse(data)    gives one input to the parser; errors that its docstring names are caught, others are findings
"""

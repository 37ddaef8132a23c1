"""One file for each kind of injury. A file here is a kind of its name; it has

SHARE                    how often it is drawn, beside the others
SLOW                     True: only when asked for by `--slow` or by its name
PRELOADED                modules imported before processes are forked
injure(place, random)    does one episode: Workplace, random.Random → Injury

`injure` raises BrokenPromiseError where the program did not bear it, Unavailable where this machine
cannot do it.
"""

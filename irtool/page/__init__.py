"""The page on the user's own machine (`irtool serve`) and the page of a run (`irtool restore --review`).

Both stand on the API (`irtool.api`), the targets of the command line (`irtool.targets`) and its account: nothing is
restored, named or written here in a way of its own.
"""

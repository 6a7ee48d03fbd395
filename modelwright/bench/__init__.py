"""The variants of a model side by side: how fast, how large and how good each one is, on this machine.

`contenders` says what takes part, `inputs` what they are given, `children` runs each one in a process of its own (whose
program is `child`), `rounds` lets them take turns, `served` measures them in the server, `document` is the result.
`choice` names the best of a result, `page` shows one as HTML.
"""

"""The kernel's user-space ABI: constants, layouts, and the texts that explain them.

Light, for the hot path: constants (generated), layout, packed (generated). Everything else imports construct:
fields and the definitions elem, prog, link, objects, info, perf; layouts, their registry; names and annotate,
their text forms.
"""

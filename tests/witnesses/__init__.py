"""A witness for each rule of the errno model: a call that breaks this rule and no other, made on a real kernel.

world has what such calls are made of (objects, memory, privileges), calls has them, by the name of their rule.
"""

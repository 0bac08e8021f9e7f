"""Servicers: the methods of each service, messages in, messages out.

A method raises, and the interceptor maps what it raises to a status.
"""

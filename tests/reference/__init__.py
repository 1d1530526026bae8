"""Slow, explicit reference implementations, written from
the papers; none of them imports the code under test.
"""

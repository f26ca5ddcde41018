"""Saga instances that Rescind runs: begun, handed out step by step, brought back (docs/decisions/0024).

`Engine.flush` is the one way in which an instance moves: it takes what is told (starts, reports, claims, what people and the
clock say), loads the facts under the locks, asks the core, and writes what it answers, in the same transaction.
"""

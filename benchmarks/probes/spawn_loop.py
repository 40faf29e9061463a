"""Runs the shell benchmark's command so many times: `spawn_loop.py N`."""

import sys

import benchlib

for _ in range(int(sys.argv[1])):
    benchlib.shell()

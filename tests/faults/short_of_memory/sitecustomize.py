"""Python imports this at its start: with FAULTS_LOG set, memory is short once that log is begun.

From then on the process gets FAULTS_ROOM bytes more than it has, as the limit of a cluster's
job would have it.
"""

import os
import resource
import sys


def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith(os.environ["FAULTS_LOG"]):
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        most = size + int(os.environ["FAULTS_ROOM"])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if "FAULTS_LOG" in os.environ:
    sys.addaudithook(watch)

"""When expressions of cron are due, by cronsim: a line of Unix times for each line of ZONE, START, END and expression."""

import sys
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

for line in sys.stdin:
    zone, start, end, expression = line.rstrip("\n").split("\t")
    times = []
    for due in CronSim(expression, datetime.fromtimestamp(int(start), ZoneInfo(zone))):
        time = int(due.timestamp())
        if time > int(end):
            break
        times.append(str(time))
    print(" ".join(times))

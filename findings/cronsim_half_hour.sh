#!/usr/bin/env bash
# The package cronsim passes over times after a clock was set forward by half an hour.
#
# Version: cronsim 2.8 and tzdata 2026.6 from PyPI, Python 3.11.
# Expected: `*/20 4 * * *` is due at 04:00, 04:20 and 04:40 of each day, in each time zone in which the clock shows these times on
# that day. On 2026-10-04 Australia/Lord_Howe goes from 02:00 to 02:30, long before, and shows all three; croniter 7.0.0 has them.
# Behaviour: the search for the hour goes on by whole hours of elapsed time from a full hour, and so comes to 03:30 and 04:30, and
# takes those as the begin of the hour: 04:00 and 04:20 are left out. `30 * * * *` leaves out 02:30, the first minute after the
# change. A monitor that goes by it does not miss a job at these times. Zones whose clocks are set by whole hours are not affected.
# Output seen:
#   */20 4 * * *: 2026-10-04T04:40:00+11:00 2026-10-05T04:00:00+11:00
#   30 * * * *: 2026-10-04T01:30:00+10:30 2026-10-04T03:30:00+11:00
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet cronsim==2.8 tzdata==2026.6
cat >"$place/trial.py" <<'PYTHON'
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

start = datetime(2026, 10, 4, 0, 50, tzinfo=ZoneInfo("Australia/Lord_Howe"))
for expression in ("*/20 4 * * *", "30 * * * *"):
    times = CronSim(expression, start)
    print(f"{expression}: {next(times).isoformat()} {next(times).isoformat()}")
PYTHON
cat >"$place/seen" <<'SEEN'
*/20 4 * * *: 2026-10-04T04:40:00+11:00 2026-10-05T04:00:00+11:00
30 * * * *: 2026-10-04T01:30:00+10:30 2026-10-04T03:30:00+11:00
SEEN
"$place/venv/bin/python" "$place/trial.py" >"$place/now"
cat "$place/now"
diff "$place/seen" "$place/now"

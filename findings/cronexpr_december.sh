#!/usr/bin/env bash
# The crate cronexpr never finds the last day of December, nor the last of a day of the week in it.
#
# Version: cronexpr 1.7.0 from crates.io, jiff 0.2.46, Rust 1.85 or later with cargo.
# Expected: by the documentation of the crate, `L` as day of the month is "the last day of the month", and `5L` as day of the week
# "the last Friday of a given month"; so `0 0 L * *` is due on 31 December, and `0 0 L 12 *` each year.
# Behaviour: the month of the day after it (of a week after it) has to be greater than its own, and January is not greater than
# December. `0 0 L * *` goes from 30 November to 31 January, `0 0 * * 5L` from 27 November to 29 January, and `0 0 L 12 *` is an
# error at each look-up. A monitor that takes it for the time of a job at the end of the year does not miss that job.
# Output seen:
#   0 0 L * * UTC: 2026-11-30 2027-01-31
#   0 0 * * 5L UTC: 2026-11-27 2027-01-29
#   0 0 L 12 * UTC: failed to find next timestamp in four years; end with 2030-12-01T00:00:00+00:00[UTC]
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/src"
cat >"$place/Cargo.toml" <<'TOML'
[package]
name = "trial"
version = "0.0.0"
edition = "2024"

[dependencies]
cronexpr = "=1.7.0"
jiff = "=0.2.46"

[workspace]
TOML
cat >"$place/src/main.rs" <<'RUST'
fn main() {
    for text in ["0 0 L * * UTC", "0 0 * * 5L UTC", "0 0 L 12 * UTC"] {
        let crontab = cronexpr::parse_crontab(text).expect("it is taken");
        let times = crontab.iter_after("2026-11-15T00:00:00Z").expect("a moment").take(2);
        let times: Result<Vec<_>, _> = times.map(|time| time.map(|time| time.date().to_string())).collect();
        match times {
            Ok(times) => println!("{text}: {}", times.join(" ")),
            Err(error) => println!("{text}: {error}"),
        }
    }
}
RUST
cat >"$place/seen" <<'SEEN'
0 0 L * * UTC: 2026-11-30 2027-01-31
0 0 * * 5L UTC: 2026-11-27 2027-01-29
0 0 L 12 * UTC: failed to find next timestamp in four years; end with 2030-12-01T00:00:00+00:00[UTC]
SEEN
CARGO_TARGET_DIR="$place/target" cargo run --quiet --manifest-path "$place/Cargo.toml" >"$place/now"
cat "$place/now"
diff "$place/seen" "$place/now"

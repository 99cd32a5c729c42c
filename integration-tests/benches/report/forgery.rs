//! What a forgery costs that is refused, beside a beat that is accepted: whoever floods the socket should not get more
//! for a datagram than an agent does.

use crate::Fallible;
use crate::flow::{self, CPU, Manner};
use crate::load::{Kind, Load};
use crate::secure;
use crate::table::{Reach, Row};

/// Each with what its forgeries are beside.
const FORGERIES: [(&str, Kind, Kind); 4] = [
    ("shared key, tag changed", Kind::SharedFlipped, Kind::Shared),
    ("shared key, noise", Kind::SharedNoise, Kind::Shared),
    ("master key, tag changed", Kind::MasterFlipped, Kind::Master),
    ("master key, noise under unknown pids", Kind::MasterNoise, Kind::Master),
];

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let (mut server, _keys) = secure::start()?;
    let kinds = [Kind::Shared, Kind::Master].into_iter().chain(FORGERIES.map(|(_, forged, _)| forged));
    let runs: Vec<_> = kinds.map(|kind| (0, Load::of(kind))).collect();
    let flows = flow::take_turns(&mut [&mut server], &runs, Manner::FullQueue)?;
    let of = |kind| {
        let place = runs.iter().position(|(_, load)| load.kind == kind);
        place.map(|place| &flows[place][..]).ok_or("a run is missing")
    };
    // The noise of the measurement is allowed for, and said to be.
    let reach = Reach { text: "≤ 1.0 (± 0.05)", holds: |compared| compared.ratio <= 1.05 };
    let row = |(name, forged, genuine)| {
        let work = format!("CPU, forgery, {name}, {}", Manner::FullQueue);
        flow::row(work, &CPU, of(forged)?, &[("a beat", of(genuine)?)], reach)
    };
    FORGERIES.into_iter().map(row).collect()
}

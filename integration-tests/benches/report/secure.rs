//! Beats over UDP under a seal, beside those in plain sight.

use tempfile::TempDir;
use varta_integration_tests::{MASTER_KEY, SHARED_KEY, write_secret};

use crate::Fallible;
use crate::flow::{self, Manner, Watched};
use crate::load::{Kind, Load};
use crate::table::{Reach, Row};

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let (mut server, _keys) = start()?;
    let runs = [Kind::Plain, Kind::Shared, Kind::Master].map(|kind| (0, Load::of(kind)));
    let reach = Reach { text: "≥ 0.9", holds: |compared| compared.ratio >= 0.9 };
    let mut rows = Vec::new();
    for manner in Manner::ALL {
        let flows = flow::take_turns(&mut [&mut server], &runs, manner)?;
        let [plain, shared, master] = &flows[..] else { return Err("a run is missing".into()) };
        let plain = [("plain UDP", &plain[..])];
        for (key, ours) in [("shared key", shared), ("master key", master)] {
            rows.extend(flow::rows(("secure", key), manner, ours, &plain, reach)?);
        }
    }
    Ok(rows)
}

/// Starts a server with a shared key and a master key, and gives the directory in which they are.
pub(crate) fn start() -> Fallible<(Watched, TempDir)> {
    let directory = tempfile::tempdir()?;
    let key = write_secret(directory.path(), "shared.key", SHARED_KEY);
    let master = write_secret(directory.path(), "master.key", MASTER_KEY);
    let (key, master) = (key.to_string_lossy(), master.to_string_lossy());
    let arguments = ["--secure-udp", "127.0.0.1:0", "--key-file", &key, "--master-key-file", &master];
    Ok((Watched::start(&arguments)?, directory))
}

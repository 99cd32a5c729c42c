//! All families of metrics that this server exports. The registry gets them before the first is registered.

use crate::engine;
use crate::ingest;
use crate::metrics::family::Family;
use crate::metrics::{agent_rows, faults, job_rows};
use crate::server::reload_metrics;
use crate::services;

/// The families of what is no service. The compiler warns of a block that is in no list: it is dead
/// code.
const OTHERS: [&[Family]; 8] = [
    reload_metrics::FAMILIES,
    ingest::metrics::FAMILIES,
    ingest::shm::metrics::FAMILIES,
    ingest::NOTIFY_FAMILIES,
    engine::metrics::FAMILIES,
    agent_rows::FAMILIES,
    job_rows::FAMILIES,
    faults::FAMILIES,
];

pub(super) fn families() -> impl Iterator<Item = &'static Family> {
    OTHERS.iter().chain(services::families()).copied().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::net::SocketAddr;

    use clap::{CommandFactory, FromArgMatches};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::config::args::Args;
    use crate::server::Server;

    /// Those of the server, and those of the example of CONTRIBUTING.md, which is held to the same rules.
    fn families_and_example() -> impl Iterator<Item = &'static Family> {
        families().chain(services::EXAMPLE_FAMILIES)
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for family in families_and_example() {
            // What every client library exports of its process has the same names everywhere.
            let is_of_process = services::PROCESS_FAMILIES.iter().any(|of| of.name == family.name);
            let prefix = if is_of_process { "process_" } else { "varta_" };
            assert!(family.name.starts_with(prefix), "{}", family.name);
            assert!(
                family.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{}",
                family.name
            );
            assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{}", family.name);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let distinct: HashSet<_> = families_and_example().map(|family| family.name).collect();
        assert_eq!(distinct.len(), families_and_example().count());
    }

    #[test]
    fn buckets_are_in_ascending_order() {
        for family in families_and_example() {
            let buckets = family.buckets.unwrap_or_default();
            assert!(buckets.is_sorted_by(|lower, upper| lower < upper), "{}", family.name);
        }
    }

    async fn scrape(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_running_server_exports_the_families_of_the_list_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("varta.sock");
        let socket = socket.to_str().unwrap();
        let addresses = ["--udp=127.0.0.1:0", "--metrics-addr=127.0.0.1:0"];
        let words = ["varta-server", "--socket", socket, "--control-socket=none"];
        let command = Args::command().mut_args(|option| option.env(None::<&str>));
        let matches = command.get_matches_from(words.into_iter().chain(addresses));
        let config = Args::from_arg_matches(&matches).unwrap().into_config().unwrap();
        let server = Server::bind(config).unwrap();
        let address = server.metrics_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ran, answer) = tokio::join!(server.run(async { _ = stopped.await }), async {
            let answer = scrape(address).await;
            drop(stop);
            answer
        });
        ran.unwrap();
        let types = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let exported: BTreeMap<&str, bool> = types.map(|(name, kind)| (name, kind == "histogram")).collect();
        // Those have rows only when there are agents, or jobs.
        let is_of_agents =
            |name| agent_rows::FAMILIES.iter().chain(job_rows::FAMILIES).any(|family| family.name == name);
        let listed: BTreeMap<&str, bool> = families()
            .filter(|family| !is_of_agents(family.name))
            .map(|family| (family.name, family.buckets.is_some()))
            .collect();
        assert_eq!(exported, listed);
    }
}

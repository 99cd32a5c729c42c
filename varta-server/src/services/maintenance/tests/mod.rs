//! Maintenance as a whole, without its socket.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use super::options;
use super::persister;
use super::protocol;
use super::*;
use crate::base::clock::wall_now;
use crate::base::files::atomic::testing::HeldFile;
use crate::base::files::state_dir::StateDir;
use crate::base::peers::Peers;
use crate::domain::AgentPattern;
use crate::domain::beat::Origin;
use crate::domain::tracker::{AgentId, NameMatches, Twin};
use crate::engine::query::{ForgetSlice, MatchingSlice, Query};
use crate::ingest::kernel_drops::KernelDrops;
use crate::ingest::probes::Probes;
use crate::metrics::Registry;
use crate::services::alarms::Alarms;
use crate::services::audit::AuditWriter;
use crate::services::context::{Context, Reloader};
use crate::services::maintenance::examination::ServerFacts;
use crate::services::maintenance::forget::ForgetService;
use crate::services::maintenance::metrics::MaintenanceMetrics;
use crate::services::maintenance::options::{ControlSocket, PlannedPause};
use crate::services::maintenance::pause_file::PauseFile;
use crate::services::maintenance::pauses::Pauses;
use crate::services::maintenance::protocol::{Matches, Request, Response, ResponseStatus};
use crate::services::maintenance::requests::{PauseService, ServerDesk};
use crate::services::maintenance::schedule::Schedule;
use crate::services::maintenance::status::StatusDesk;
use crate::services::maintenance::testing::{asked, at, glob};
use crate::services::maintenance::trail::Trail;

const HOUR: Duration = Duration::from_secs(3_600);

/// A service that nobody answers what it asks of the tracker.
fn desk(pauses: &Pauses, directory: Option<&Path>) -> PauseService {
    desk_with(pauses, directory, mpsc::channel(1).0)
}

fn desk_with(pauses: &Pauses, directory: Option<&Path>, queries: mpsc::Sender<Query>) -> PauseService {
    let registry = Registry::for_test();
    let metrics = MaintenanceMetrics::new(&registry);
    let trail = Trail { audit: AuditWriter::none(), host: "here".into() };
    let (context, _queries) = Context::for_test();
    let status = StatusDesk {
        facts: ServerFacts {
            metrics: registry.handle(),
            kernel_drops: KernelDrops::new(&registry, Probes::default()),
            peers: Peers::default(),
            state_dir: None,
        },
        alarms: Alarms::default(),
        clock: context.clock,
        host: "here".into(),
        faults: context.faults.clone(),
        queries: queries.clone(),
    };
    let (reloads, handovers) = (Reloader::new(mpsc::channel(1).0), mpsc::channel(1).0);
    let forget = ForgetService { queries, trail };
    PauseService::new(
        pauses.clone(),
        directory.map(PauseFile::new),
        metrics,
        forget,
        mpsc::channel(1).0,
        ServerDesk { reloads, handovers, status },
    )
}

fn pause(pattern: &str) -> Request {
    Request::Pause { pattern: glob(pattern), length: HOUR, reason: None }
}

fn resume(pattern: &str) -> Request {
    Request::Resume { pattern: glob(pattern) }
}

fn open(state_dir: &Path) -> Pauses {
    let (mut context, _queries) = Context::for_test();
    context.state_dir = Some(StateDir::open(state_dir).unwrap());
    service::Maintenance::open(&options::MaintenanceOptions::default(), &context).unwrap().pauses().clone()
}

#[test]
fn nobody_is_paused_at_first_and_clones_share_what_they_know() {
    let pauses = Pauses::default();
    let clone = pauses.clone();
    assert!(!clone.is_paused("batch-1", at(0)));
    pauses.change(|list| list.add(asked("batch-*", 60))).unwrap();
    assert!(clone.is_paused("batch-1", at(59)));
    assert!(!clone.is_paused("batch-1", at(60)) && !clone.is_paused("mail", at(59)));
}

#[tokio::test]
async fn a_pause_that_was_answered_is_on_the_disk_and_counts_for_the_next_server_from_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let pauses = Pauses::default();
    let desk = desk(&pauses, Some(directory.path()));
    let answer = desk.answer(pause("batch-*"), 7).await;
    assert_eq!((answer.outcome, answer.word, answer.kept), (ResponseStatus::Ok, None, true));
    assert!(pauses.is_paused("batch-1", wall_now()));
    assert!(open(directory.path()).is_paused("batch-1", wall_now()));

    assert_eq!(desk.answer(resume("batch-*"), 7).await.outcome, ResponseStatus::Ok);
    assert!(!pauses.is_paused("batch-1", wall_now()));
    assert!(!open(directory.path()).is_paused("batch-1", wall_now()));
}

#[tokio::test]
async fn a_pause_tells_whom_it_matches_now() {
    let (to_queries, mut queries) = mpsc::channel(1);
    let pauses = Pauses::default();
    let desk = desk_with(&pauses, None, to_queries);
    let tracker = async {
        for (agents, names, next) in [(4, &["batch-2", "batch-1"][..], Some(4_096)), (1, &["batch-3"], None)]
        {
            let Some(Query::Matching { pattern, answer, .. }) = queries.recv().await else {
                panic!("it asks for matching agents");
            };
            assert_eq!(pattern, glob("batch-*"));
            let names = names.iter().map(|name| Arc::from(*name)).collect();
            answer.send(MatchingSlice { matches: NameMatches { agents, names }, next }).unwrap();
        }
    };
    let (answer, ()) = tokio::join!(desk.answer(pause("batch-*"), 7), tracker);
    let names = ["batch-1", "batch-2", "batch-3"].map(str::to_owned).to_vec();
    assert_eq!(answer.matches, Some(Matches { agents: 5, names }));
}

#[tokio::test]
async fn a_pause_that_a_restart_forgets_counts_and_the_answer_says_so() {
    let pauses = Pauses::default();
    let answer = desk(&pauses, None).answer(pause("a"), 7).await;
    assert!(answer.word.unwrap().contains("--state-dir") && !answer.kept);
    assert!(pauses.is_paused("a", wall_now()));

    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    let desk = desk(&pauses, Some(&gone));
    for request in [pause("b"), resume("b")] {
        let answer = desk.answer(request, 7).await;
        assert_eq!(answer.outcome, ResponseStatus::Ok);
        let word = answer.word.unwrap();
        assert!(word.contains("pauses.json: cannot be written: No such file"), "{word}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_counts_at_once_and_a_disk_that_hangs_is_not_waited_for_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let pauses = Pauses::default();
    let desk = Arc::new(desk(&pauses, Some(directory.path())));
    let held = HeldFile::new(&directory.path().join("pauses.json"));
    let mut answers = Vec::new();
    for pattern in ["a", "b", "c"] {
        let desk = Arc::clone(&desk);
        answers.push(tokio::spawn(async move { desk.answer(pause(pattern), 7).await }));
        while !pauses.is_paused(pattern, wall_now()) {
            tokio::task::yield_now().await;
        }
    }
    tokio::time::advance(persister::WRITTEN_WITHIN).await;
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.outcome, ResponseStatus::Ok);
        let word = answer.word.unwrap();
        assert!(word.contains("has not taken it for 5s; the server may forget this pause"), "{word}");
    }
    assert!(!directory.path().join("pauses.json").exists());

    // The blocked write completes, and the one that waits covers this request too.
    drop(held);
    tokio::time::resume();
    let answer = desk.answer(resume("a"), 7).await;
    assert_eq!((answer.outcome, answer.word), (ResponseStatus::Ok, None));
    let next = open(directory.path());
    assert_eq!(["a", "b", "c"].map(|name| next.is_paused(name, wall_now())), [false, true, true]);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing() {
    let pauses = Pauses::default();
    let mut planned = PlannedPauses::default();
    planned.add(PlannedPause { name: glob("planned"), from: None, until: None, reason: None }).unwrap();
    pauses.plan(&planned, wall_now());
    let desk = desk(&pauses, None);
    for (request, said) in [
        (resume("planned"), "planned is paused by the configuration's file"),
        (resume("nobody"), "there is no pause of nobody"),
    ] {
        let answer = desk.answer(request, 7).await;
        assert_eq!(answer.outcome, ResponseStatus::Refused);
        assert!(answer.word.unwrap().starts_with(said));
    }
    assert!(pauses.is_paused("planned", wall_now()));
    for number in 0..Schedule::MAX_PAUSES {
        assert_eq!(desk.answer(pause(&format!("a{number}")), 7).await.outcome, ResponseStatus::Ok);
    }
    let refused = desk.answer(pause("one-more"), 7).await;
    assert!(refused.word.unwrap().starts_with("there are 1024 pauses"));
    let listed = desk.answer(Request::Pauses, 7).await;
    assert_eq!(listed.pauses.len(), Schedule::MAX_PAUSES + 1);
    assert_eq!(listed.pauses[0]["in_force"], json!(true));
    assert!(listed.to_line().len() <= protocol::MAX_RESPONSE_LEN);
}

#[test]
fn a_control_socket_that_nobody_asked_for_is_done_without_where_its_path_is_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x".repeat(107));
    let open = |is_default| {
        let control = Some(ControlSocket { path: path.clone(), is_default });
        let (context, _queries) = Context::for_test();
        let options = options::MaintenanceOptions { control, planned: PlannedPauses::default() };
        service::Maintenance::open(&options, &context)
    };
    assert!(open(true).unwrap().control.is_none());
    let refused = open(false).unwrap_err();
    assert_eq!(refused.exit_status(), 2);
    assert!(refused.to_string().ends_with("give a shorter one with --control-socket"), "{refused}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Answers the first queries as a tracker does that has these agents in each slice.
async fn answer_forget(queries: &mut mpsc::Receiver<Query>, slices: &[(&[&str], &[&str])]) {
    let agents = |names: &[&str]| names.iter().map(|name| agent(name)).collect();
    for (number, (forgotten, living)) in slices.iter().enumerate() {
        let Some(Query::Forget { who, answer, from }) = queries.recv().await else {
            panic!("it asks for agents to be forgotten");
        };
        assert_eq!((who.as_str(), from), ("worker-*", number * 1_024));
        let next = (number + 1 < slices.len()).then_some((number + 1) * 1_024);
        answer.send(ForgetSlice { forgotten: agents(forgotten), living: agents(living), next }).unwrap();
    }
}

fn agent(name: &str) -> AgentId {
    AgentId { name: name.into(), origin: Origin::Local, pid: 7, twin: Twin::FIRST }
}

async fn forget(slices: &[(&[&str], &[&str])]) -> Response {
    let (to_queries, mut queries) = mpsc::channel(1);
    let desk = desk_with(&Pauses::default(), None, to_queries);
    let request = Request::Forget { who: AgentPattern::parse("worker-*").unwrap(), reason: None };
    tokio::join!(desk.answer(request, 7), answer_forget(&mut queries, slices)).0
}

#[tokio::test]
async fn who_is_forgotten_is_told_and_who_lives_is_named() {
    let answer = forget(&[(&["worker-1"], &["worker-3"]), (&["worker-2"], &[])]).await;
    let forgotten = ["worker-1[7]", "worker-2[7]"].map(str::to_owned).to_vec();
    assert_eq!(answer.forgotten, Some(Matches { agents: 2, names: forgotten }));
    assert_eq!(answer.living, Some(Matches { agents: 1, names: vec!["worker-3[7]".to_owned()] }));
    assert_eq!((answer.outcome, answer.word), (ResponseStatus::Ok, None));
}

#[tokio::test]
async fn a_request_that_finds_nobody_or_only_who_lives_is_refused() {
    for (slice, said) in [
        ((&[][..], &[][..]), "nobody has the name or pid worker-*"),
        ((&[], &["worker-1"]), "worker-1[7] lives, and the next beat"),
        ((&[], &["worker-1", "worker-2"]), "worker-1[7], worker-2[7] live, and"),
    ] {
        let answer = forget(&[slice]).await;
        assert_eq!(answer.outcome, ResponseStatus::Refused);
        let word = answer.word.unwrap();
        assert!(word.starts_with(said), "{word}");
    }
}

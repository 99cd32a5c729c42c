use varta_proto::control::{Control, ControlKind, GoodbyeReason};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A control datagram as the transport received it.
pub(super) struct SentControl {
    /// The number of frames before it.
    frames_before: usize,
    bytes: Vec<u8>,
}

impl SentControl {
    pub(super) fn control(&self) -> Control<'_> {
        Control::decode(&self.bytes).unwrap()
    }
}

impl Scripted {
    pub(super) fn controls_sent(&self) -> Vec<SentControl> {
        let controls_sent = self.0.lock().unwrap().controls_sent.clone();
        controls_sent.into_iter().map(|(frames_before, bytes)| SentControl { frames_before, bytes }).collect()
    }

    /// The number of frames before each control datagram.
    fn frames_before_controls(&self) -> Vec<usize> {
        self.controls_sent().iter().map(|controls_sent| controls_sent.frames_before).collect()
    }

    fn lose_next_controls(&self, kinds: &[io::ErrorKind]) {
        self.0.lock().unwrap().controls.extend(kinds.iter().map(|kind| Err((*kind).into())));
    }
}

fn named() -> (Varta<Scripted>, Scripted) {
    let transport = Scripted::default();
    let builder = Varta::builder().name("worker").reconnect_after(0).transport(transport.clone());
    (builder.connect().unwrap(), transport)
}

fn beat_after(agent: &mut Varta<Scripted>, elapsed: Duration) -> BeatOutcome {
    let now = agent.start + elapsed;
    agent.beat_at(now, Status::Ok, 0)
}

#[test]
fn a_handle_that_was_asked_for_nothing_only_beats() {
    let transport = Scripted::default();
    let mut agent = Varta::builder().transport(transport.clone()).connect().unwrap();
    transport.drop_next(&[GONE]);
    for minutes in 0..10 {
        assert!(beat_after(&mut agent, MINUTE * minutes).is_sent());
    }
    agent.reconnect().unwrap();
    agent.process_life.invalidate();
    assert!(beat(&mut agent).is_sent());
    let centuries = MINUTE * 60 * 24 * 365 * 700;
    assert!(beat_after(&mut agent, centuries).is_sent());
    assert!(transport.controls_sent().is_empty());
}

#[test]
fn a_handle_with_something_to_say_says_it_at_connect() {
    let transport = Scripted::default();
    let builder = Varta::builder().name("worker").interval(Duration::from_millis(250));
    let builder = builder.stall_after(Duration::from_secs(1)).label("zone", "a").label("team", "payments");
    let mut agent = builder.transport(transport.clone()).connect().unwrap();

    let controls_sent = transport.controls_sent();
    let [hello] = &controls_sent[..] else { panic!("one Hello") };
    let hello = hello.control();
    assert_eq!((hello.kind(), hello.pid()), (ControlKind::Hello, process::id()));
    assert_eq!((hello.timestamp(), hello.nonce(), hello.unsent()), (0, 0, Some(0)));
    assert_eq!(hello.name().unwrap().as_str(), "worker");
    assert_eq!((hello.interval_ms(), hello.stall_after_ms()), (Some(250), Some(1000)));
    let labels: Vec<String> = hello.labels().map(|label| label.to_string()).collect();
    assert_eq!(labels, ["zone=a", "team=payments"]);
    assert_eq!((hello.busy_for_ms(), hello.reason()), (None, None));

    assert!(beat(&mut agent).is_sent());
    assert_eq!(transport.controls_sent().len(), 1);
}

#[test]
fn each_setting_alone_is_something_to_say() {
    let second = Duration::from_secs(1);
    let builders = [
        Varta::builder().name("worker"),
        Varta::builder().interval(second),
        Varta::builder().stall_after(second),
        Varta::builder().label("zone", "a"),
    ];
    for builder in builders {
        let transport = Scripted::default();
        let _agent = builder.transport(transport.clone()).connect().unwrap();
        assert_eq!(transport.controls_sent().len(), 1);
    }
}

#[test]
fn the_first_setting_that_cannot_be_is_the_error_of_connect() {
    let builder = Varta::builder().name("worker").label("a-b", "c").name("no name").name("worker");
    let transport = Scripted::default();
    let error = builder.transport(transport.clone()).connect().err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("the label \"a-b=c\""), "{error}");
    assert!(transport.controls_sent().is_empty());
}

#[test]
fn a_handle_that_beats_every_15_seconds_says_hello_once_a_minute_at_the_least() {
    let (mut agent, transport) = named();
    for beats in 0..40 {
        assert!(beat_after(&mut agent, Duration::from_secs(15) * beats).is_sent());
    }
    let controls_sent = transport.controls_sent();
    let times: Vec<u64> = controls_sent.iter().map(|hello| hello.control().timestamp()).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 60_000_000_000), "{times:?}");
    assert_eq!(times.len(), 14, "and not with every beat");
    let sessions: Vec<[u8; 16]> = controls_sent.iter().map(|hello| hello.control().session()).collect();
    assert!(sessions.iter().all(|session| *session == sessions[0]));
}

#[test]
fn a_hello_says_the_nonce_and_the_time_of_the_beat_before_it() {
    let (mut agent, transport) = named();
    for beats in 1..=3 {
        assert!(beat_after(&mut agent, MINUTE * beats).is_sent());
    }
    let frames = transport.frames();
    let controls_sent = transport.controls_sent();
    for (index, hello) in controls_sent[1..].iter().enumerate() {
        let (hello, frame) = (hello.control(), frames[index]);
        assert_eq!((hello.nonce(), hello.timestamp()), (frame.nonce, frame.timestamp));
    }
    assert_eq!(transport.frames_before_controls(), [0, 1, 2, 3]);
}

#[test]
fn a_hello_that_is_lost_goes_out_behind_the_next_beat_and_changes_no_outcome() {
    let transport = Scripted::default();
    transport.lose_next_controls(&[FULL, GONE, io::ErrorKind::ConnectionRefused]);
    let builder = Varta::builder().name("worker").transport(transport.clone());
    let mut agent = builder.connect().unwrap();
    for _ in 0..5 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    }
    assert_eq!(transport.frames_before_controls(), [0, 1, 2, 3]);
    assert_eq!((transport.reconnected(), agent.dropped_in_a_row), (0, 0));
    assert_eq!(transport.controls_sent()[3].control().unsent(), Some(0), "a Hello is no beat");
}

#[test]
fn the_first_hello_of_a_connection_stays_before_the_beat_until_it_meets_a_full_queue() {
    let (mut agent, transport) = named();
    agent.reconnect().unwrap();
    transport.lose_next_controls(&[GONE, GONE, FULL, FULL]);
    for _ in 0..6 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    }
    // Three beats have it before them. The third met a full queue, and from then on the beats go first.
    let expected = [0, 0, 1, 2, 3, 4];
    assert_eq!(transport.frames_before_controls(), expected);
    let controls_sent = transport.controls_sent();
    let nonces: Vec<u64> = controls_sent.iter().map(|hello| hello.control().nonce()).collect();
    assert_eq!(nonces, expected.map(|frames| frames as u64));
}

#[test]
fn a_hello_waits_for_a_beat_that_gets_through() {
    let (mut agent, transport) = named();
    transport.drop_next(&[FULL, io::ErrorKind::Other, GONE]);
    for _ in 0..3 {
        assert!(!beat_after(&mut agent, MINUTE).is_sent());
    }
    assert_eq!(transport.controls_sent().len(), 1);
    assert!(beat_after(&mut agent, MINUTE).is_sent());
    assert_eq!(transport.frames_before_controls(), [0, 4]);
}

#[test]
fn a_hello_counts_the_beats_that_the_kernel_did_not_take() {
    let (mut agent, transport) = named();
    agent.set_reconnect_after(2);
    transport.drop_next(&[FULL, io::ErrorKind::Other, GONE, GONE]);
    transport.fail_reconnect_next(GONE);
    for _ in 0..6 {
        let _ = beat_after(&mut agent, MINUTE);
    }
    assert_eq!(transport.controls_sent()[1].control().unsent(), Some(4));
    assert!(agent.beat(Status::Stall, 0).is_failed());
    assert!(beat_after(&mut agent, MINUTE * 2).is_sent());
    assert_eq!(transport.controls_sent()[2].control().unsent(), Some(4), "what was refused is no beat");
}

#[test]
fn a_hello_that_fails_is_not_tried_again_with_every_beat() {
    for answer in [Err(io::ErrorKind::PermissionDenied.into()), Ok(7)] {
        let transport = Scripted::default();
        transport.0.lock().unwrap().controls.push_back(answer);
        let mut agent = Varta::builder().name("worker").transport(transport.clone()).connect().unwrap();
        for _ in 0..3 {
            assert_eq!(beat(&mut agent), BeatOutcome::Sent);
        }
        assert_eq!(transport.controls_sent().len(), 1);
        assert!(beat_after(&mut agent, MINUTE).is_sent());
        assert_eq!(transport.controls_sent().len(), 2);
    }
}

#[test]
fn a_transport_that_carries_beats_alone_loses_the_hello_and_no_beat() {
    struct BeatsAlone;

    impl BeatTransport for BeatsAlone {
        fn send(&mut self, _: &[u8; 32]) -> io::Result<usize> {
            Ok(32)
        }

        fn reconnect(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut agent = Varta::builder().name("worker").transport(BeatsAlone).connect().unwrap();
    for minutes in 0..3 {
        let now = agent.start + MINUTE * minutes;
        assert_eq!(agent.beat_at(now, Status::Ok, 0), BeatOutcome::Sent);
    }
}

#[test]
fn after_a_reconnect_the_next_beat_says_hello_before_itself() {
    let (mut agent, transport) = named();
    assert!(beat(&mut agent).is_sent());
    agent.reconnect().unwrap();
    assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
    assert_eq!(transport.frames_before_controls(), [0, 1]);

    // A beat that detects the restart of the server does the same.
    agent.set_reconnect_after(1);
    transport.drop_next(&[GONE]);
    assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
    assert_eq!(transport.frames_before_controls(), [0, 1, 4]);
    let controls_sent = transport.controls_sent();
    let nonces: Vec<u64> = controls_sent.iter().map(|hello| hello.control().nonce()).collect();
    assert_eq!(nonces, [0, 1, 3], "of the beat before");
    assert!(
        controls_sent.iter().all(|hello| hello.control().session() == controls_sent[0].control().session())
    );
}

#[test]
fn a_reconnect_from_a_full_queue_to_a_full_queue_is_no_reason_to_say_hello() {
    let (mut agent, transport) = named();
    agent.set_reconnect_after(1);
    transport.drop_next(&[FULL, FULL]);
    assert!(beat(&mut agent).is_dropped());
    assert!(beat(&mut agent).is_sent());
    assert_eq!((transport.reconnected(), transport.controls_sent().len()), (1, 1));

    // If the new queue has room, it may be another server's.
    transport.drop_next(&[FULL]);
    assert!(beat(&mut agent).is_sent());
    assert_eq!((transport.reconnected(), transport.controls_sent().len()), (2, 2));
}

#[test]
fn a_forked_child_says_hello_before_its_first_beat_in_a_session_of_its_own() {
    let (mut agent, transport) = named();
    transport.drop_next(&[FULL]);
    assert!(beat(&mut agent).is_dropped());
    agent.process_life.invalidate();
    transport.fail_reconnect_next(GONE);
    assert!(beat(&mut agent).is_failed());
    assert_eq!(transport.controls_sent().len(), 1);

    assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
    assert_eq!(transport.frames_before_controls(), [0, 1]);
    let controls_sent = transport.controls_sent();
    let (parent, child) = (controls_sent[0].control(), controls_sent[1].control());
    assert_ne!(parent.session(), child.session());
    assert_eq!((child.nonce(), child.unsent(), child.name()), (0, Some(0), parent.name()));
}

#[test]
fn an_explicit_reconnect_in_a_forked_child_begins_a_session_for_its_hellos() {
    let (mut agent, transport) = named();
    agent.process_life.invalidate();
    agent.reconnect().unwrap();
    assert!(beat(&mut agent).is_sent());
    let controls_sent = transport.controls_sent();
    assert_ne!(controls_sent[0].control().session(), controls_sent[1].control().session());
}

#[test]
fn any_handle_says_goodbye_when_it_is_closed() {
    let (mut agent, transport) = agent();
    transport.drop_next(&[FULL]);
    let start = agent.start;
    for seconds in 1..=2 {
        let _ = agent.beat_at(start + Duration::from_secs(seconds), Status::Ok, 0);
    }
    assert_eq!(agent.close(GoodbyeReason::Replaced), BeatOutcome::Sent);
    let controls_sent = transport.controls_sent();
    let [goodbye] = &controls_sent[..] else { panic!("one Goodbye") };
    let goodbye = goodbye.control();
    assert_eq!((goodbye.kind(), goodbye.reason()), (ControlKind::Goodbye, Some(GoodbyeReason::Replaced)));
    assert_eq!((goodbye.pid(), goodbye.nonce(), goodbye.unsent()), (process::id(), 2, Some(1)));
    assert_eq!(goodbye.timestamp(), 2_000_000_000, "time does not go back");
    assert_eq!(goodbye.name(), None);
}

#[test]
fn a_goodbye_is_of_the_session_of_the_hellos() {
    let (agent, transport) = named();
    assert!(agent.close(GoodbyeReason::Shutdown).is_sent());
    let controls_sent = transport.controls_sent();
    assert_eq!(controls_sent[0].control().session(), controls_sent[1].control().session());
}

#[test]
fn a_handle_that_is_dropped_says_nothing() {
    let (mut agent, transport) = named();
    assert!(beat(&mut agent).is_sent());
    drop(agent);
    assert_eq!(transport.controls_sent().len(), 1, "the Hello");
}

#[test]
fn a_goodbye_is_patient_with_a_full_queue_but_not_for_ever() {
    let (agent, transport) = agent();
    transport.lose_next_controls(&[FULL; 3]);
    assert_eq!(agent.close(GoodbyeReason::Shutdown), BeatOutcome::Sent);
    assert_eq!(transport.controls_sent().len(), 4);

    let (agent, transport) = self::agent();
    transport.lose_next_controls(&[FULL; 10]);
    assert_eq!(agent.close(GoodbyeReason::Shutdown), dropped(FULL));
    assert_eq!(transport.controls_sent().len(), 5);
}

#[test]
fn a_goodbye_finds_the_restarted_server_if_the_handle_reconnects() {
    for (reconnect_after, outcome) in [(0, dropped(GONE)), (5, BeatOutcome::Sent)] {
        let (agent, transport) = agent_reconnecting_after(reconnect_after);
        transport.lose_next_controls(&[GONE]);
        assert_eq!(agent.close(GoodbyeReason::Shutdown), outcome);
        assert_eq!(transport.reconnected(), usize::from(outcome.is_sent()));
    }
}

#[test]
fn a_child_that_closes_what_it_inherited_says_goodbye_for_itself() {
    let (mut agent, transport) = named();
    assert!(beat(&mut agent).is_sent());
    agent.process_life.invalidate();
    assert!(agent.close(GoodbyeReason::Shutdown).is_sent());
    let controls_sent = transport.controls_sent();
    let goodbye = controls_sent[1].control();
    assert_ne!(goodbye.session(), controls_sent[0].control().session());
    assert_eq!((goodbye.nonce(), transport.reconnected()), (0, 1));
}

#[test]
fn a_disabled_handle_sends_nothing_and_reports_it() {
    let mut agent = Varta::disabled();
    let nobody = BeatOutcome::Dropped(DropReason::NoObserver);
    assert_eq!(agent.busy_for(MINUTE), nobody);
    assert_eq!(agent.close(GoodbyeReason::Shutdown), nobody);
}

#[test]
fn a_busy_handle_says_so_at_once_and_for_how_long() {
    let (mut agent, transport) = agent();
    let start = agent.start;
    for (span, controls_sent) in
        [(Duration::from_micros(90_000_500), 90_001), (Duration::ZERO, 0), (Duration::MAX, u32::MAX)]
    {
        assert_eq!(agent.busy_for_at(start + MINUTE, span), BeatOutcome::Sent);
        let hello = transport.controls_sent().pop().unwrap();
        assert_eq!(
            (hello.control().kind(), hello.control().busy_for_ms()),
            (ControlKind::Hello, Some(controls_sent))
        );
    }
}

#[test]
fn a_handle_without_a_name_says_that_it_is_busy_once() {
    let (mut agent, transport) = agent();
    let start = agent.start;
    transport.lose_next_controls(&[FULL]);
    assert!(agent.busy_for_at(start, MINUTE).is_dropped());
    for seconds in [20, 30, 40] {
        assert!(beat_after(&mut agent, Duration::from_secs(seconds)).is_sent());
    }
    let controls_sent: Vec<_> =
        transport.controls_sent().iter().map(|hello| hello.control().busy_for_ms()).collect();
    assert_eq!(controls_sent, [Some(60_000), Some(40_000)], "the lost one again, with what is left");

    agent.reconnect().unwrap();
    assert!(beat_after(&mut agent, Duration::from_secs(50)).is_sent());
    assert_eq!(transport.controls_sent()[2].control().busy_for_ms(), Some(10_000), "to the new server");
}

#[test]
fn the_hellos_of_a_busy_handle_say_it_until_it_is_over() {
    let (mut agent, transport) = named();
    let start = agent.start;
    assert!(agent.busy_for_at(start, MINUTE * 2).is_sent());
    for minutes in 1..=4 {
        assert!(beat_after(&mut agent, MINUTE * minutes).is_sent());
    }
    let controls_sent: Vec<_> =
        transport.controls_sent().iter().map(|hello| hello.control().busy_for_ms()).collect();
    assert_eq!(controls_sent, [None, Some(120_000), Some(60_000), Some(0), None, None]);
}

#[test]
fn a_forked_child_is_not_busy_with_what_its_parent_is_busy_with() {
    let (mut agent, transport) = named();
    assert!(agent.busy_for(MINUTE).is_sent());
    agent.process_life.invalidate();
    assert!(beat(&mut agent).is_sent());
    assert_eq!(transport.controls_sent().pop().unwrap().control().busy_for_ms(), None);
}

use varta_proto::control::{Control, ControlKind};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A control datagram as it was handed to the transport.
struct Said {
    /// How many frames came before it.
    behind: usize,
    bytes: Vec<u8>,
}

impl Said {
    fn control(&self) -> Control<'_> {
        Control::decode(&self.bytes).unwrap()
    }
}

impl Scripted {
    fn said(&self) -> Vec<Said> {
        let said = self.0.lock().unwrap().said.clone();
        said.into_iter().map(|(behind, bytes)| Said { behind, bytes }).collect()
    }

    /// How many frames came before each control datagram.
    fn said_behind(&self) -> Vec<usize> {
        self.said().iter().map(|said| said.behind).collect()
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
    agent.incarnation.forget();
    assert!(beat(&mut agent).is_sent());
    let centuries = MINUTE * 60 * 24 * 365 * 700;
    assert!(beat_after(&mut agent, centuries).is_sent());
    assert!(transport.said().is_empty());
}

#[test]
fn a_handle_with_something_to_say_says_it_at_connect() {
    let transport = Scripted::default();
    let builder = Varta::builder().name("worker").interval(Duration::from_millis(250));
    let builder = builder.stall_after(Duration::from_secs(1)).label("zone", "a").label("team", "payments");
    let mut agent = builder.transport(transport.clone()).connect().unwrap();

    let said = transport.said();
    let [hello] = &said[..] else { panic!("one Hello") };
    let hello = hello.control();
    assert_eq!((hello.kind(), hello.pid()), (ControlKind::Hello, process::id()));
    assert_eq!((hello.timestamp(), hello.nonce(), hello.unsent()), (0, 0, Some(0)));
    assert_eq!(hello.name().unwrap().as_str(), "worker");
    assert_eq!((hello.interval_ms(), hello.stall_after_ms()), (Some(250), Some(1000)));
    let labels: Vec<String> = hello.labels().map(|label| label.to_string()).collect();
    assert_eq!(labels, ["zone=a", "team=payments"]);
    assert_eq!((hello.busy_for_ms(), hello.reason()), (None, None));

    assert!(beat(&mut agent).is_sent());
    assert_eq!(transport.said().len(), 1);
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
        assert_eq!(transport.said().len(), 1);
    }
}

#[test]
fn the_first_setting_that_cannot_be_is_the_error_of_connect() {
    let builder = Varta::builder().name("worker").label("a-b", "c").name("no name").name("worker");
    let transport = Scripted::default();
    let error = builder.transport(transport.clone()).connect().err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("the label \"a-b=c\""), "{error}");
    assert!(transport.said().is_empty());
}

#[test]
fn a_handle_that_beats_every_15_seconds_says_hello_once_a_minute_at_the_least() {
    let (mut agent, transport) = named();
    for beats in 0..40 {
        assert!(beat_after(&mut agent, Duration::from_secs(15) * beats).is_sent());
    }
    let said = transport.said();
    let times: Vec<u64> = said.iter().map(|hello| hello.control().timestamp()).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 60_000_000_000), "{times:?}");
    assert_eq!(times.len(), 14, "and not with every beat");
    let sessions: Vec<[u8; 16]> = said.iter().map(|hello| hello.control().session()).collect();
    assert!(sessions.iter().all(|session| *session == sessions[0]));
}

#[test]
fn a_hello_says_the_nonce_and_the_time_of_the_beat_before_it() {
    let (mut agent, transport) = named();
    for beats in 1..=3 {
        assert!(beat_after(&mut agent, MINUTE * beats).is_sent());
    }
    let frames = transport.frames();
    let said = transport.said();
    for (index, hello) in said[1..].iter().enumerate() {
        let (hello, frame) = (hello.control(), frames[index]);
        assert_eq!((hello.nonce(), hello.timestamp()), (frame.nonce, frame.timestamp));
    }
    assert_eq!(transport.said_behind(), [0, 1, 2, 3]);
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
    assert_eq!(transport.said_behind(), [0, 1, 2, 3]);
    assert_eq!((transport.reconnected(), agent.dropped_in_a_row), (0, 0));
    assert_eq!(transport.said()[3].control().unsent(), Some(0), "a Hello is no beat");
}

#[test]
fn a_hello_waits_for_a_beat_that_gets_through() {
    let (mut agent, transport) = named();
    transport.drop_next(&[FULL, io::ErrorKind::Other, GONE]);
    for _ in 0..3 {
        assert!(!beat_after(&mut agent, MINUTE).is_sent());
    }
    assert_eq!(transport.said().len(), 1);
    assert!(beat_after(&mut agent, MINUTE).is_sent());
    assert_eq!(transport.said_behind(), [0, 4]);
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
    assert_eq!(transport.said()[1].control().unsent(), Some(4));
    assert!(agent.beat(Status::Stall, 0).is_failed());
    assert!(beat_after(&mut agent, MINUTE * 2).is_sent());
    assert_eq!(transport.said()[2].control().unsent(), Some(4), "what was refused is no beat");
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
        assert_eq!(transport.said().len(), 1);
        assert!(beat_after(&mut agent, MINUTE).is_sent());
        assert_eq!(transport.said().len(), 2);
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
fn after_a_reconnect_the_next_beat_says_hello_again() {
    let (mut agent, transport) = named();
    assert!(beat(&mut agent).is_sent());
    agent.reconnect().unwrap();
    assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
    assert_eq!(transport.said_behind(), [0, 2]);

    // And the beat that found out that the server was restarted does so itself.
    agent.set_reconnect_after(1);
    transport.drop_next(&[GONE]);
    assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
    assert_eq!(transport.said_behind(), [0, 2, 5]);
    let said = transport.said();
    assert!(said.iter().all(|hello| hello.control().session() == said[0].control().session()));
}

#[test]
fn a_reconnect_from_a_full_queue_to_a_full_queue_is_no_reason_to_say_hello() {
    let (mut agent, transport) = named();
    agent.set_reconnect_after(1);
    transport.drop_next(&[FULL, FULL]);
    assert!(beat(&mut agent).is_dropped());
    assert!(beat(&mut agent).is_sent());
    assert_eq!((transport.reconnected(), transport.said().len()), (1, 1));

    // Where the new one has room it may be another's.
    transport.drop_next(&[FULL]);
    assert!(beat(&mut agent).is_sent());
    assert_eq!((transport.reconnected(), transport.said().len()), (2, 2));
}

#[test]
fn a_forked_child_says_hello_behind_its_first_beat_in_a_session_of_its_own() {
    let (mut agent, transport) = named();
    transport.drop_next(&[FULL]);
    assert!(beat(&mut agent).is_dropped());
    agent.incarnation.forget();
    transport.fail_reconnect_next(GONE);
    assert!(beat(&mut agent).is_failed());
    assert_eq!(transport.said().len(), 1);

    assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
    assert_eq!(transport.said_behind(), [0, 2]);
    let said = transport.said();
    let (parent, child) = (said[0].control(), said[1].control());
    assert_ne!(parent.session(), child.session());
    assert_eq!((child.nonce(), child.unsent(), child.name()), (1, Some(0), parent.name()));
}

#[test]
fn an_explicit_reconnect_in_a_forked_child_begins_a_session_for_its_hellos() {
    let (mut agent, transport) = named();
    agent.incarnation.forget();
    agent.reconnect().unwrap();
    assert!(beat(&mut agent).is_sent());
    let said = transport.said();
    assert_ne!(said[0].control().session(), said[1].control().session());
}

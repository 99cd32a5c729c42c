//! Handles that say how much work was done.

use std::time::Duration;

use varta_proto::control::ControlKind;

use super::*;

#[test]
fn the_first_count_is_preceded_by_a_hello_that_says_what_it_is() {
    let (mut agent, transport) = agent();
    assert!(beat(&mut agent).is_sent());
    assert_eq!(transport.controls_sent().len(), 0);
    assert!(agent.progress(u64::from(u32::MAX) + 8).is_sent());
    assert!(agent.progress(8).is_sent());
    let hellos = transport.controls_sent();
    let [hello] = hellos.as_slice() else { panic!("{}", hellos.len()) };
    assert_eq!(hello.control().kind(), ControlKind::Hello);
    assert_eq!(hello.control().no_progress_after_ms(), Some(0));
    let payloads: Vec<_> = transport.frames().iter().map(|frame| frame.payload).collect();
    assert_eq!(payloads[1..], [7, 8]);
}

#[test]
fn it_is_said_again_each_minute_and_to_another_server_and_by_a_forked_child() {
    let (mut agent, transport) = agent();
    assert!(agent.progress(1).is_sent());
    let start = agent.start;
    let beat_after = |agent: &mut Varta<Scripted>, seconds| {
        assert!(agent.beat_at(start + Duration::from_secs(seconds), Status::Ok, 1).is_sent());
    };
    for seconds in [30, 60, 90, 120] {
        beat_after(&mut agent, seconds);
    }
    assert_eq!(transport.controls_sent().len(), 3);
    agent.reconnect().unwrap();
    beat_after(&mut agent, 121);
    agent.process_life.invalidate();
    assert!(beat(&mut agent).is_sent());
    let said = transport.controls_sent();
    assert_eq!(said.len(), 5);
    assert!(said.iter().all(|hello| hello.control().no_progress_after_ms() == Some(0)));
}

#[test]
fn a_time_that_was_set_is_said_with_and_without_a_count() {
    let transport = Scripted::default();
    let builder = Varta::builder().no_progress_after(Duration::from_micros(1_500)).reconnect_after(0);
    let mut agent = builder.transport(transport.clone()).connect().unwrap();
    assert!(beat(&mut agent).is_sent());
    assert!(agent.progress(1).is_sent());
    agent.reconnect().unwrap();
    assert!(agent.progress(2).is_sent());
    let said: Vec<_> =
        transport.controls_sent().iter().map(|hello| hello.control().no_progress_after_ms()).collect();
    assert_eq!(said, [Some(2); 3]);
}

//! Any bytes are either a control datagram whose every part can be read, or an error. Never a panic.
//!
//! ```text
//! cargo +nightly fuzz run control -- -max_total_time=10
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use varta_proto::control::{
    AgentName, CONTROL_MAGIC, CONTROL_VERSION, Control, Goodbye, Hello, Label, LabelSet, MAX_CONTROL_LEN,
    MAX_LABELS,
};
use varta_proto::crc32c;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);

    // The same bytes as kind and body of a datagram that is otherwise valid, which random bytes hardly ever
    // are.
    if let Some((&kind, body)) = bytes.split_first()
        && let Ok(len) = u16::try_from(body.len())
    {
        let mut whole = [&CONTROL_MAGIC[..], &[CONTROL_VERSION, kind], &[0x92, 0x10, 0, 0]].concat();
        whole.extend([0; 16]);
        whole.extend(len.to_le_bytes());
        whole.extend([0, 0]);
        whole.extend(body);
        let checksum = crc32c::checksum(&whole);
        whole.extend(checksum.to_le_bytes());
        check(&whole);
    }
});

fn check(bytes: &[u8]) {
    let control = match Control::decode(bytes) {
        Ok(control) => control,
        Err(error) => return assert!(!error.to_string().is_empty() && !error.kind().is_empty()),
    };
    assert_eq!(&*control.encoded(), bytes);
    assert!(!format!("{control:?}").is_empty());
    assert!(control.labels().count() <= MAX_LABELS);

    // A decoded datagram is valid, so it can be encoded again. Only its labels may need more room than ours.
    let mut labels = LabelSet::new();
    for label in control.labels() {
        assert_eq!(Label::parse(&label.to_string()), Ok(label));
        let _ = labels.push(label);
    }
    let name = control.name().map(|name| AgentName::parse(name.as_str()).expect("it was a name"));
    let hello = Hello {
        name: name.as_ref(),
        interval_ms: control.interval_ms(),
        stall_after_ms: control.stall_after_ms(),
        labels: &labels,
        unsent: control.unsent(),
        busy_for_ms: control.busy_for_ms(),
        no_progress_after_ms: control.no_progress_after_ms(),
        ..Hello::new(control.pid(), control.timestamp(), control.nonce(), control.session())
    };
    let mut out = [0; MAX_CONTROL_LEN];
    let again = hello.encode(&mut out);
    assert!(![32, 60, 64].contains(&again.len()));
    let again = Control::decode(&again).expect("it was encoded");
    assert_eq!(
        (again.name(), again.session(), again.pid()),
        (control.name(), control.session(), control.pid())
    );
    assert!(again.labels().eq(labels.iter()));

    if let Some(reason) = control.reason() {
        let goodbye = Goodbye {
            unsent: control.unsent(),
            ..Goodbye::new(control.pid(), control.timestamp(), control.nonce(), control.session(), reason)
        };
        let again = goodbye.encode(&mut out);
        assert!(![32, 60, 64].contains(&again.len()));
        assert_eq!(Control::decode(&again).expect("it was encoded").reason(), Some(reason));
    }
}

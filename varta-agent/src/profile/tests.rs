use super::*;

#[test]
fn a_time_is_said_in_milliseconds_begun() {
    let nanosecond = Duration::from_nanos(1);
    for (span, interval_ms) in [
        (Duration::ZERO, None),
        (nanosecond, Some(1)),
        (Duration::from_millis(1), Some(1)),
        (Duration::from_millis(1) + nanosecond, Some(2)),
        (MAX_DURATION - nanosecond, Some(u32::MAX)),
        (MAX_DURATION, Some(u32::MAX)),
        (MAX_DURATION + nanosecond, None),
        (Duration::MAX, None),
    ] {
        assert_eq!(milliseconds(span), interval_ms, "{span:?}");
    }
}

#[test]
fn an_agent_has_to_have_time_to_beat() {
    let with = |interval, stall_after| {
        let mut profile = Profile::default();
        profile.set_interval(Duration::from_millis(interval)).unwrap();
        profile.set_stall_after(Duration::from_millis(stall_after)).unwrap();
        profile.check()
    };
    assert!(with(500, 501).is_ok());
    assert!(with(500, 500).is_err());
    assert_eq!(
        with(500, 100).unwrap_err().to_string(),
        "an agent that beats every 500 ms is never well if it is stalled after 100 ms: ask for three intervals"
    );
}

#[test]
fn a_fault_names_what_was_asked_for_and_what_is_wrong_with_it() {
    let mut profile = Profile::default();
    profile.add_label("team", "payments").unwrap();
    let faults = [
        profile.set_name("my worker"),
        profile.set_interval(Duration::ZERO).map(drop),
        profile.set_stall_after(Duration::MAX),
        profile.add_label("my-team", "x"),
        profile.add_label("team", "search"),
    ];
    let messages = [
        "an agent cannot be named \"my worker\": character 3 of the name is none of A-Z a-z 0-9 . _ - : / @",
        "the interval between beats is more than zero and at most 49 days, not 0ns",
        "the time after which an agent is stalled is more than zero and at most 49 days, \
         not 18446744073709551615.999999999s",
        "an agent cannot have the label \"my-team=x\": \
         the key of a label is a letter or _, then letters, digits and _, without __ ahead",
        "there is no place for the label \"team=search\": an agent has no two labels with one key",
    ];
    for (fault, message) in faults.into_iter().zip(messages) {
        assert_eq!(fault.unwrap_err().into_io().to_string(), message);
    }
    assert!(profile.name.is_none() && profile.interval_ms.is_none());
}

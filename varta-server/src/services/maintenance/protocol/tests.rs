//! What is said is understood, and what makes no sense is told.

use super::*;
use crate::services::maintenance::testing::{asked, glob};

#[test]
fn what_is_said_is_understood() {
    let reason = Some(Reason::parse("a \"reason\"").unwrap());
    let pattern = glob("batch-*");
    for request in [
        Request::Pause { pattern: pattern.clone(), length: MIN_PAUSE, reason },
        Request::Pause { pattern: pattern.clone(), length: MAX_DURATION, reason: None },
        Request::Resume { pattern },
        Request::Pauses,
        Request::Forget { who: AgentPattern::parse("4242").unwrap(), reason: None },
        Request::Acknowledge {
            who: AgentPattern::parse("a").unwrap(),
            reason: Some(Reason::parse("b").unwrap()),
        },
        Request::TakeBack { who: AgentPattern::parse("a*").unwrap() },
        Request::Reload,
        Request::Status,
        Request::Upgrade,
        Request::TakeOver { version: 7 },
        Request::Names { of: NamesOf::Forget, start: "a \"".to_owned() },
    ] {
        let line = request.to_line();
        assert!(line.ends_with('\n') && line.len() <= MAX_REQUEST_LEN);
        assert_eq!(Request::parse(line.as_bytes()), Ok(request));
    }
    let answer = Response {
        outcome: ResponseStatus::Ok,
        word: None,
        pauses: vec![asked("a", 9).to_json()],
        kept: true,
        matches: Some(Matches { agents: 7, names: vec!["a".to_owned(), "a b".to_owned()] }),
        forgotten: Some(Matches { agents: 1, names: vec!["a[7]".to_owned()] }),
        living: None,
        acknowledged: None,
        lines: vec!["a was read again".to_owned()],
        names: vec!["a".to_owned(), "a \"b\"".to_owned()],
        status: Some(serde_json::json!({ "ready": true, "alarms": [] })),
    };
    for answer in [answer, Response::refused("no"), Response::malformed("what?")] {
        assert_eq!(Response::parse(answer.to_line().as_bytes()), Ok(answer));
    }
}

#[test]
fn a_request_that_makes_no_sense_is_told_what_is_wrong() {
    for (line, said) in [
        ("", "is not JSON"),
        ("\u{0}", "is not JSON"),
        ("pause batch", "is not JSON"),
        ("{} {}", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("{}", "v: is missing"),
        (r#"{"v":"1"}"#, "v: is not a whole number"),
        (r#"{"v":2,"do":"pauses"}"#, "v: 2 is not spoken here"),
        (r#"{"v":1}"#, "do: is missing"),
        (r#"{"v":1,"do":"stop"}"#, "do: `stop` is none of pause, resume, pauses, forget, ack, unack"),
        (r#"{"v":1,"do":"pauses","all":true}"#, "all: there is no such key here"),
        (r#"{"v":1,"do":"forget"}"#, "who: is missing"),
        (r#"{"v":1,"do":"forget","who":""}"#, "who: has 1 to 128 characters"),
        (r#"{"v":1,"do":"names"}"#, "for: is missing"),
        (
            r#"{"v":1,"do":"names","for":"reload"}"#,
            "for: `reload` is none of pause, watch, events, resume, forget, ack, unack",
        ),
        (r#"{"v":1,"do":"resume"}"#, "pattern: is missing"),
        (r#"{"v":1,"do":"resume","pattern":""}"#, "pattern: has 1 to 128 characters"),
        (r#"{"v":1,"do":"resume","pattern":"a","for_ms":1000}"#, "for_ms: there is no such key here"),
        (r#"{"v":1,"do":"pause","pattern":"a"}"#, "for_ms: is missing"),
        (r#"{"v":1,"do":"pause","pattern":"a","for_ms":1.5}"#, "for_ms: is not a whole number"),
        (r#"{"v":1,"do":"pause","pattern":"a","for_ms":-1}"#, "for_ms: is not a whole number"),
        (r#"{"v":1,"do":"pause","pattern":"a","for_ms":999}"#, "for_ms: 999ms is not between"),
        (r#"{"v":1,"do":"pause","pattern":"a","for_ms":31622400001}"#, "for_ms: "),
        (r#"{"v":1,"do":"pause","pattern":"a","for_ms":1000,"reason":"a\u0007"}"#, "reason: has 1 to"),
        (r#"{"v":1,"do":"pause","pattern":"a","for_ms":1000,"reason":1}"#, "reason: is not a string"),
    ] {
        let fault = Request::parse(line.as_bytes()).unwrap_err();
        assert!(fault.starts_with(said), "{line}: {fault}");
    }
    assert!(Request::parse("[".repeat(MAX_REQUEST_LEN).as_bytes()).is_err());
    assert!(Request::parse(b"{\"v\":1,\"do\":\"\xff\"}").is_err());
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error() {
    let matches = r#"{"v":1,"outcome":"ok","pauses":[],"matches":{"agents":1,"names":[1]}}"#;
    for line in ["", "{}", r#"{"v":2,"outcome":"ok"}"#, r#"{"v":1,"outcome":"perhaps"}"#, matches] {
        assert!(Response::parse(line.as_bytes()).is_err(), "{line}");
    }
    let answer = Response::parse(br#"{"v":1,"outcome":"ok","pauses":[{}],"new":1}"#).unwrap();
    assert!(answer.read_pauses().is_err());
}
